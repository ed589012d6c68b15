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
