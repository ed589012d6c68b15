/** A rolling hash of a history: two runs of a seed must have the same, or something in them was not the seed's. */
import type { HistoryEvent } from '../../src/conformance/history.ts'

export class Trace {
  #low = 0x811c9dc5
  #high = 0x9e3779b9
  #count = 0

  add(event: HistoryEvent): void {
    this.#count++
    this.#number(event.atMs)
    if (event.kind === 'mark') return this.#text(event.mark)
    this.#number(event.op)
    if (event.kind === 'begin') return this.#value(event.call)
    this.#value(event.answer)
  }

  digest(): string {
    return `${this.#count}-${(this.#low >>> 0).toString(16).padStart(8, '0')}${(this.#high >>> 0).toString(16).padStart(8, '0')}`
  }

  #value(value: unknown): void {
    if (typeof value === 'number') this.#number(value)
    else if (typeof value === 'string') this.#text(value)
    else if (Array.isArray(value)) for (const one of value) this.#value(one)
    else if (value !== null && typeof value === 'object') for (const key in value) this.#value((value as never)[key])
  }

  #number(value: number): void {
    this.#mix(value | 0)
    this.#mix(Math.floor(value / 0x1_0000_0000) ^ ((value * 1_024) | 0))
  }

  #text(text: string): void {
    for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i))
  }

  #mix(value: number): void {
    this.#low = Math.imul(this.#low ^ value, 0x01000193)
    this.#high = Math.imul(this.#high ^ (value + this.#low), 0x85ebca6b)
    this.#high ^= this.#high >>> 13
  }
}
