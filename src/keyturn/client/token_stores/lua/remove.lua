-- No record any more.
-- KEYS: the record
-- ARGV: the channel and the message for those who watch
-- Answers 1 if there was one, else 0

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return redis.call('DEL', KEYS[1])
