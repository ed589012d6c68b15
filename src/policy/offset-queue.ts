/** A first-in, first-out line of offsets: 8 bytes each, no allocation per entry once it has grown. */
export class OffsetQueue {
  #items: number[] = []
  #start = 0

  get length(): number {
    return this.#items.length - this.#start
  }

  push(offset: number): void {
    this.#items.push(offset)
  }

  /** The first, or -1. */
  peek(): number {
    return this.#items[this.#start] ?? -1
  }

  /** Where `offset` stands, from 0, or -1. Walks the line. */
  indexOf(offset: number): number {
    const index = this.#items.indexOf(offset, this.#start)
    return index < 0 ? -1 : index - this.#start
  }

  /** How many are lower than `offset`. Walks the line. */
  countBelow(offset: number): number {
    let count = 0
    for (let i = this.#start; i < this.#items.length; i++) if ((this.#items[i] as number) < offset) count++
    return count
  }

  /** Takes the first, or -1. */
  shift(): number {
    const first = this.#items[this.#start]
    if (first === undefined) return -1
    this.#start++
    if (this.#start > 1_024 && this.#start * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#start)
      this.#start = 0
    } else if (this.#start === this.#items.length) {
      this.#items.length = 0
      this.#start = 0
    }
    return first
  }
}
