-- The lease of a name, if it is nobody else's. Asking again as the same owner does no harm.
-- KEYS: the lease
-- ARGV: the owner, its life in milliseconds
-- Answers 1 if it is the owner's, else 0

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 1
end
return 0
