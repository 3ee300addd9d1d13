// Stands behind plotly's own module, which calls its view of a figure `FigureView`; see the class `Chart`.
// The figure goes one way, from Python to the page: nothing is computed for, or sent to, the kernel.
{
  const view = PlotlyFigureView.prototype;
  const { perform_render, do_update, remove } = view;

  view._sendTraceDeltas = view._sendLayoutDelta = view._send_points_callback_message = view.touch = function () {};

  // plotly follows the size of the window; a notebook's cell also changes when a side bar opens.
  view.perform_render = function () {
    perform_render.call(this);
    this.qmlObserver = new ResizeObserver(() => {
      const { offsetWidth: width, offsetHeight: height, _fullLayout: drawn } = this.el;
      if (drawn && width && height && (width !== drawn.width || height !== drawn.height)) this.autosizeFigure();
    });
    this.qmlObserver.observe(this.el);
  };

  // A page that can't draw as fast as updates come draws the newest, and is never late by more than one picture.
  view.do_update = function () {
    const update = this.model.get("_py2js_update");
    if (update === null || this.qmlRemoved) return; // plotly's view goes on listening after its removal
    this.qmlUpdate = merged(this.qmlUpdate, update);
    this.qmlFrame ||= requestAnimationFrame(() => {
      const model = { get: () => this.qmlUpdate, _normalize_trace_indexes: (traces) => traces };
      do_update.call(Object.assign(Object.create(this), { model }));
      this.qmlFrame = this.qmlUpdate = null;
    });
  };

  // Each update of a Chart has the whole of every curve, so the later one stands for both.
  function merged(before, now) {
    const all = { ...now };
    for (const part of ["style_data", "layout_data"]) all[part] = { ...before?.[part], ...now[part] };
    return all;
  }

  view.remove = function () {
    this.qmlRemoved = true;
    this.qmlObserver?.disconnect();
    cancelAnimationFrame(this.qmlFrame);
    remove.call(this);
  };
}
