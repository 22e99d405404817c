-- The record of a name, and the server's time.
-- KEYS: the record
-- Answers {seconds, microseconds, record or false}

-- Only a primary takes a write, even one that changes nothing: a replica, or what has become one, refuses.
redis.call('PERSIST', KEYS[1])

local time = redis.call('TIME')
return {time[1], time[2], redis.call('GET', KEYS[1])}
