-- The record of a name, and the server's time.
-- KEYS: the record, a key that is never there
-- Answers {seconds, microseconds, record or false}

-- Only a primary takes a write, even one that does nothing: a replica, or what has become one, refuses.
redis.call('DEL', KEYS[2])

local time = redis.call('TIME')
return {time[1], time[2], redis.call('GET', KEYS[1])}
