-- Show jobs. Answers what `look_at` does.
-- ids
return look_at(ARGV)
