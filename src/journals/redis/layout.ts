/**
 * What stands in Redis. Everything of a namespace shares one hash tag, so that it is on one node of a cluster:
 *
 *     sluice:{NS}:state     hash    format, id (random, of this journal), epoch and holder of the last grant, the number of
 *                                   its connection, floor
 *     sluice:{NS}:entries   stream  EPOCH-0 o HOLDER p LAST   a grant: who got it, and the last id before it
 *                                   EPOCH-N e BYTES           entry N of that grant, from 1, without a gap
 *     sluice:{NS}:lock      string  the holder, until it expires: who waits claims when it is gone
 *     sluice:{NS}:letter:X  string  a letter too large to be published, for a minute
 *
 * The ids of a stream only rise. So a grant, by its mere entry EPOCH-0, makes Redis refuse every later entry of a grant
 * before it (rule 3), and an entry that is sent again is refused if it is there: a plain XADD is fenced and idempotent. The
 * lock only says when to claim; that it is right is not needed for anything else.
 *
 * Letters are published, to `sluice:{NS}:ID:owner`, `…:all` and `…:to:ADDRESS`, with the id of the journal, as
 * channels are shared between the databases of a server; `…:free` says that the lock was given up.
 */

export const FORMAT = '1'

export interface Names {
  readonly state: string
  readonly entries: string
  readonly lock: string
  letter(id: string): string
  channel(journalId: string, to: string): string
}

export function nameKeys(namespace: string): Names {
  const prefix = `sluice:{${namespace}}:`
  return {
    state: `${prefix}state`,
    entries: `${prefix}entries`,
    lock: `${prefix}lock`,
    letter: (id) => `${prefix}letter:${id}`,
    channel: (journalId, to) => `${prefix}${journalId}:${to}`,
  }
}

/** `allow-oom`: what a journal needs to change hands and to shrink works while Redis is out of memory. */
const SCRIPT = '#!lua flags=allow-oom\n'

const LAST = `
local function last(key)
  if redis.call('EXISTS', key) == 0 then return '0-0' end
  local about = redis.call('XINFO', 'STREAM', key)
  for i = 1, #about, 2 do if about[i] == 'last-generated-id' then return about[i + 1] end end
end
`

/** KEYS state entries lock. Answers id, epoch, holder, last id, floor; or that there is none, or what else stands there. */
export const LOOK = `#!lua flags=no-writes
${LAST}
local kinds = { 'hash', 'stream', 'string' }
local missing = 0
for i = 1, 3 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind == 'none' then missing = missing + 1
  elseif kind ~= kinds[i] then return { 'foreign', KEYS[i], kind } end
end
if missing == 3 then return { 'none' } end
local state = redis.call('HMGET', KEYS[1], 'format', 'id', 'epoch', 'holder', 'floor')
if not state[2] then return { 'foreign', KEYS[1], 'without the id of a journal' } end
return { 'journal', state[1], state[2], state[3], state[4], last(KEYS[2]), state[5] }
`

/** KEYS state entries lock; ARGV the id of a new journal. Makes it where there is nothing, whoever comes first. */
export const MAKE = `${SCRIPT}
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) > 0 then return 'there' end
redis.call('HSET', KEYS[1], 'format', '${FORMAT}', 'id', ARGV[1], 'epoch', '0', 'holder', '', 'floor', '0-0')
return 'made'
`

/**
 * KEYS state entries lock; ARGV id, holder, lease in ms, number of its connection, and a holder whose lock may be broken,
 * as it was by a connection that is gone.
 * Answers the epoch, or who has the lock, for how many ms, and by which connection.
 */
export const CLAIM = `${SCRIPT}${LAST}
local state = redis.call('HMGET', KEYS[1], 'id', 'epoch', 'connection')
if state[1] ~= ARGV[1] then return { 'changed' } end
local lock = redis.call('GET', KEYS[3])
local isGone = lock == ARGV[5] and state[3] == ARGV[6]
if lock and lock ~= ARGV[2] and not isGone then
  return { 'held', redis.call('PTTL', KEYS[3]), lock, state[3] or '' }
end
local before = last(KEYS[2])
if tonumber(string.match(before, '^%d+')) ~= tonumber(state[2]) then return { 'broken', before, state[2] } end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'connection', ARGV[4])
redis.call('XADD', KEYS[2], epoch .. '-0', 'o', ARGV[2], 'p', before)
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
return { 'granted', epoch }
`

/**
 * KEYS entries; ARGV ids, then as many values. For what makes room, once plain XADDs are refused for want of memory. The first
 * id is refused if any is, so that all of it is added or nothing.
 */
export const ADD = `${SCRIPT}
local count = #ARGV / 2
for i = 1, count do
  if not redis.call('XADD', KEYS[1], 'NOMKSTREAM', ARGV[i], 'e', ARGV[count + i]) then return 'gone' end
end
return 'added'
`

/** KEYS letter; ARGV its bytes, how long it stays in ms. Also past `maxmemory`: what settles, and so makes room, travels in letters. */
export const PUT = `${SCRIPT}
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
`

const HELD = `
local state = redis.call('HMGET', KEYS[1], 'id', 'epoch', 'holder', 'connection')
if not state[1] then return 'changed' end
if state[2] ~= ARGV[1] or state[3] ~= ARGV[2] then return 'lost' end
`

/** KEYS state lock; ARGV epoch, holder, lease in ms, connection. A lock that expired and that nobody took is taken again. */
export const RENEW = `${SCRIPT}${HELD}
if state[4] ~= ARGV[4] then redis.call('HSET', KEYS[1], 'connection', ARGV[4]) end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 'held'
`

/** KEYS state lock; ARGV epoch, holder, channel. */
export const RELEASE = `${SCRIPT}${HELD}
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
redis.call('PUBLISH', ARGV[3], '')
return 'held'
`

/** KEYS state entries; ARGV epoch, holder, floor, most entries in one step. Answers how many went. */
export const TRIM = `${SCRIPT}${HELD}
redis.call('HSET', KEYS[1], 'floor', ARGV[3])
return redis.call('XTRIM', KEYS[2], 'MINID', '~', ARGV[3], 'LIMIT', ARGV[4])
`

/** A place: the id of an entry. */
export interface Id {
  readonly epoch: number
  readonly number: number
}

export function parseId(text: string): Id {
  const dash = text.indexOf('-')
  return { epoch: Number(text.slice(0, dash)), number: Number(text.slice(dash + 1)) }
}

export function compareIds(a: Id, b: Id): number {
  return a.epoch - b.epoch || a.number - b.number
}
