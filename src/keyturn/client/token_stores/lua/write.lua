-- A record, if what is there has the version that it is written over, and the lease is still its holder's.
-- KEYS: the record; the lease if one is asked for (one key can be reached while its slot moves, two may not)
-- ARGV: the epoch and the generation written over (a generation of '' is nothing), the record,
--       the owner of the lease ('' asks for none), '1' if it may have been written already by this very call,
--       the channel and the message for those who watch ('' is none)
-- Answers 1 if it is written, 0 if not, -1 if what is there cannot be read

local function decoded(text)
  local good, value = pcall(cjson.decode, text)
  return good and type(value) == 'table' and value or {}
end

local there = redis.call('GET', KEYS[1])
if there and ARGV[5] == '1' and there == ARGV[3] then
  return 1
end
if there then
  local record = decoded(there)
  if record.format ~= decoded(ARGV[3]).format
    or type(record.epoch) ~= 'string' or type(record.generation) ~= 'number' then
    return -1
  end
  if ARGV[2] == '' or record.epoch ~= ARGV[1] or record.generation ~= tonumber(ARGV[2]) then
    return 0
  end
elseif ARGV[2] ~= '' then
  return 0
end
if ARGV[4] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[4] then
  return 0
end

-- First, so that who may not publish learns of it before anything is written. It is seen when the script is over.
if ARGV[7] ~= '' then
  redis.call('PUBLISH', ARGV[6], ARGV[7])
end
redis.call('SET', KEYS[1], ARGV[3])
return 1
