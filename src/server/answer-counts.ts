/**
 * How many answers went out and how long they took, by method, route and status: numbers, printed when somebody asks. A
 * counter and a histogram of prom-client were a twentieth of the time of a request.
 */

const BOUNDS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

interface Answers {
  readonly route: string
  readonly method: string
  readonly byStatus: Map<number, number>
  /** Of those that took up to each bound, and no less than the one before; the last is of those that took longer. */
  readonly slots: number[]
  seconds: number
}

export class AnswerCounts {
  readonly #byRoute = new Map<string, Map<string, Answers>>()

  /** `tookMs`: since its request came in. */
  count(method: string, route: string, status: number, tookMs: number): void {
    const one = this.#byRoute.get(route)?.get(method) ?? this.#add(route, method)
    const seconds = tookMs / 1_000
    let slot = 0
    while (slot < BOUNDS_SECONDS.length && seconds > (BOUNDS_SECONDS[slot] as number)) slot++
    one.slots[slot] = (one.slots[slot] as number) + 1
    one.seconds += seconds
    one.byStatus.set(status, (one.byStatus.get(status) ?? 0) + 1)
  }

  /** In the text format of Prometheus. */
  print(): string {
    const lines = ['# HELP sluice_http_requests_total Answers', '# TYPE sluice_http_requests_total counter']
    for (const { route, method, byStatus } of this.#all())
      for (const [status, count] of byStatus)
        lines.push(`sluice_http_requests_total{method="${method}",route="${route}",status="${status}"} ${count}`)
    lines.push(
      '# HELP sluice_http_request_seconds Time from the headers of a request to the end of its answer, waits included',
      '# TYPE sluice_http_request_seconds histogram',
    )
    for (const [route, methods] of this.#byRoute) {
      let count = 0
      for (let slot = 0; slot <= BOUNDS_SECONDS.length; slot++) {
        for (const { slots } of methods.values()) count += slots[slot] as number
        const bound = BOUNDS_SECONDS[slot] ?? '+Inf'
        lines.push(`sluice_http_request_seconds_bucket{route="${route}",le="${bound}"} ${count}`)
      }
      const seconds = [...methods.values()].reduce((sum, one) => sum + one.seconds, 0)
      lines.push(
        `sluice_http_request_seconds_sum{route="${route}"} ${seconds}`,
        `sluice_http_request_seconds_count{route="${route}"} ${count}`,
      )
    }
    return `${lines.join('\n')}\n`
  }

  *#all(): Generator<Answers> {
    for (const methods of this.#byRoute.values()) yield* methods.values()
  }

  #add(route: string, method: string): Answers {
    const slots = new Array<number>(BOUNDS_SECONDS.length + 1).fill(0)
    const one: Answers = { route, method, byStatus: new Map(), slots, seconds: 0 }
    const methods = this.#byRoute.get(route) ?? new Map<string, Answers>()
    methods.set(method, one)
    this.#byRoute.set(route, methods)
    return one
  }
}
