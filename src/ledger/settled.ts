/**
 * Which offsets of a group are settled: everything below the floor, and a set above it.
 *
 * The set is bitmaps of 8,192 offsets (1 KiB), since what is settled out of order lies close together, and a bitmap of
 * which all bits are set costs one shared value however long the floor is held up by one parked message: 5 million
 * offsets above a stuck floor are 610 chunks. A chunk is stored as one row, again when it changed, and deleted once the
 * floor has passed it.
 */
const CHUNK_BITS = 8_192
const CHUNK_WORDS = CHUNK_BITS / 32
const ALL = 0xffffffff
const FULL: Uint32Array = new Uint32Array(CHUNK_WORDS).fill(ALL)

export class SettledSet {
  #floor: number
  readonly #chunks = new Map<number, Uint32Array>()
  readonly #dirty = new Set<number>()
  readonly #stored = new Set<number>()

  constructor(floor: number) {
    this.#floor = floor
  }

  /** The lowest offset that is not settled. */
  get floor(): number {
    return this.#floor
  }

  has(offset: number): boolean {
    if (offset < this.#floor) return true
    const chunk = this.#chunks.get(Math.floor(offset / CHUNK_BITS))
    if (chunk === undefined) return false
    const bit = offset % CHUNK_BITS
    return ((chunk[bit >>> 5] as number) & (1 << (bit & 31))) !== 0
  }

  /** Adds an offset; says whether it was not there. `raiseFloor` must follow before anything is stored. */
  add(offset: number): boolean {
    if (offset < this.#floor) return false
    const number = Math.floor(offset / CHUNK_BITS)
    let chunk = this.#chunks.get(number)
    if (chunk === undefined) {
      chunk = new Uint32Array(CHUNK_WORDS)
      this.#chunks.set(number, chunk)
    }
    const bit = offset % CHUNK_BITS
    const word = bit >>> 5
    const mask = 1 << (bit & 31)
    const before = chunk[word] as number
    if ((before & mask) !== 0) return false
    chunk[word] = before | mask
    this.#dirty.add(number)
    return true
  }

  /** Moves the floor past everything that is settled now. */
  raiseFloor(): void {
    let floor = this.#floor
    for (;;) {
      const number = Math.floor(floor / CHUNK_BITS)
      const chunk = this.#chunks.get(number)
      if (chunk === undefined) break
      const next = firstUnset(chunk, floor % CHUNK_BITS)
      if (next < CHUNK_BITS) {
        floor = number * CHUNK_BITS + next
        if (!hasAbove(chunk, next)) this.#drop(number)
        break
      }
      floor = (number + 1) * CHUNK_BITS
      this.#drop(number)
    }
    this.#floor = floor
  }

  /** What changed since the last time: chunk number to bytes, or null where the row is not needed any more. */
  takeChanges(put: (chunk: number, bytes: Uint8Array | null) => void): void {
    for (const number of this.#dirty) {
      const chunk = this.#chunks.get(number)
      if (chunk === undefined) {
        if (this.#stored.delete(number)) put(number, null)
        continue
      }
      this.#stored.add(number)
      if (isFull(chunk)) {
        this.#chunks.set(number, FULL)
        put(number, Uint8Array.of(1))
      } else {
        put(number, new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength).slice())
      }
    }
    this.#dirty.clear()
  }

  /** Takes the stored floor back in, before the chunks. */
  startAt(floor: number): void {
    this.#floor = floor
  }

  /** Takes a stored chunk back in. */
  load(number: number, bytes: Uint8Array): void {
    this.#stored.add(number)
    if (bytes.byteLength === 1) {
      this.#chunks.set(number, FULL)
    } else {
      const words = new Uint32Array(CHUNK_WORDS)
      new Uint8Array(words.buffer).set(bytes)
      this.#chunks.set(number, words)
    }
  }

  /** The first offset from `offset` on that is not settled. */
  nextOpen(offset: number): number {
    let from = Math.max(offset, this.#floor)
    for (;;) {
      const number = Math.floor(from / CHUNK_BITS)
      const chunk = this.#chunks.get(number)
      if (chunk === undefined) return from
      const next = firstUnset(chunk, from % CHUNK_BITS)
      if (next < CHUNK_BITS) return number * CHUNK_BITS + next
      from = (number + 1) * CHUNK_BITS
    }
  }

  /** How many offsets are settled from `from` to `to` (exclusive). Looks at what is known above the floor, not at each. */
  countBetween(from: number, to: number): number {
    let count = Math.max(0, Math.min(to, this.#floor) - from)
    const start = Math.max(from, this.#floor)
    for (const [number, chunk] of this.#chunks) {
      const base = number * CHUNK_BITS
      const first = Math.max(start, base)
      const last = Math.min(to, base + CHUNK_BITS)
      for (let offset = first; offset < last; offset++) {
        const bit = offset - base
        if (((chunk[bit >>> 5] as number) & (1 << (bit & 31))) !== 0) count++
      }
    }
    return count
  }

  #drop(number: number): void {
    this.#chunks.delete(number)
    if (this.#stored.has(number)) this.#dirty.add(number)
    else this.#dirty.delete(number)
  }
}

function firstUnset(chunk: Uint32Array, from: number): number {
  let word = from >>> 5
  let bits = (chunk[word] as number) | ((1 << (from & 31)) - 1)
  while (bits >>> 0 === ALL) {
    word++
    if (word === CHUNK_WORDS) return CHUNK_BITS
    bits = chunk[word] as number
  }
  return word * 32 + 31 - Math.clz32(~bits & -~bits)
}

function hasAbove(chunk: Uint32Array, bit: number): boolean {
  const word = bit >>> 5
  const shift = (bit & 31) + 1
  if (shift < 32 && (chunk[word] as number) >>> shift !== 0) return true
  for (let i = word + 1; i < CHUNK_WORDS; i++) if (chunk[i] !== 0) return true
  return false
}

function isFull(chunk: Uint32Array): boolean {
  for (let i = 0; i < CHUNK_WORDS; i++) if (chunk[i] !== ALL) return false
  return true
}
