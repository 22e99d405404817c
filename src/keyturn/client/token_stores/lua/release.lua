-- The end of a lease, if it is still its owner's.
-- KEYS: the lease
-- ARGV: the owner, the channel and the message for those who watch
-- Answers 1 if it was, else 0

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[2], ARGV[3]) -- a lease ends even where nobody may be told
return 1
