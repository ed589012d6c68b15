/**
 * Things to be done at a time: a binary heap. Entries are never removed before they fall due; who put one in asks, when
 * it does, whether it still holds. That keeps cancelling free, at the price of entries that stay until their time.
 */
export class Timers<T> {
  readonly #times: number[] = []
  readonly #items: T[] = []

  get size(): number {
    return this.#times.length
  }

  /** When the first is due; Infinity: none. */
  get nextMs(): number {
    return this.#times[0] ?? Number.POSITIVE_INFINITY
  }

  clear(): void {
    this.#times.length = 0
    this.#items.length = 0
  }

  add(atMs: number, item: T): void {
    let at = this.#times.length
    while (at > 0) {
      const parent = (at - 1) >> 1
      const time = this.#times[parent] as number
      if (time <= atMs) break
      this.#times[at] = time
      this.#items[at] = this.#items[parent] as T
      at = parent
    }
    this.#times[at] = atMs
    this.#items[at] = item
  }

  /** Takes the first that is due at `nowMs`, or undefined. */
  takeDue(nowMs: number): T | undefined {
    if (this.nextMs > nowMs) return undefined
    const first = this.#items[0]
    const lastTime = this.#times.pop() as number
    const lastItem = this.#items.pop() as T
    const size = this.#times.length
    if (size === 0) return first
    let at = 0
    for (;;) {
      let child = at * 2 + 1
      if (child >= size) break
      if (child + 1 < size && (this.#times[child + 1] as number) < (this.#times[child] as number)) child++
      if ((this.#times[child] as number) >= lastTime) break
      this.#times[at] = this.#times[child] as number
      this.#items[at] = this.#items[child] as T
      at = child
    }
    this.#times[at] = lastTime
    this.#items[at] = lastItem
    return first
  }
}
