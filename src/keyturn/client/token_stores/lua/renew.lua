-- A lease lives on, if it is still its owner's.
-- KEYS: the lease
-- ARGV: the owner, its life from now in milliseconds
-- Answers 1 if it is, else 0

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
