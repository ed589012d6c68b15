/**
 * Whoever asks the server for something: in its process (answers come at once, and die with it), or over a network that
 * delays, loses, repeats and is late. Every call and every answer that is seen goes into the history.
 */
import type { Answer, Call, History } from '../../src/conformance/history.ts'
import type { AnswerValue, LedgerAnswer, LedgerRequest } from '../../src/ledger/requests.ts'
import type { Body, SimulatedServer } from './server.ts'
import type { Situations } from './situations.ts'
import type { Swarm } from './swarm.ts'
import type { World } from './world.ts'

/** What everybody in a simulation knows of. */
export interface Scene {
  readonly world: World
  readonly swarm: Swarm
  readonly server: SimulatedServer
  readonly history: History
  readonly situations: Situations
  /** Calls begun. */
  operations: number
  /** Publishers stop, faults are over; workers do everything that is left. */
  isHealed: boolean
}

/** A client gives up this long after the answer should have come. */
const PATIENCE_MS = 2_000

export class Client {
  readonly scene: Scene
  readonly name: string
  readonly isRemote: boolean

  constructor(scene: Scene, name: string, isRemote: boolean) {
    this.scene = scene
    this.name = name
    this.isRemote = isRemote
  }

  /**
   * `isRepeatable`: a second copy of the request has no second effect. `waitMs`: how long the server may take to answer.
   * `then` is called once.
   */
  call<K extends LedgerRequest['kind']>(
    call: Call,
    kind: K,
    body: Body<K>,
    convert: (value: AnswerValue) => Answer,
    then: (answer: Answer) => void,
    { waitMs = 0, isRepeatable = false }: { waitMs?: number; isRepeatable?: boolean } = {},
  ): void {
    const { scene } = this
    const { history, server, world, swarm, situations } = scene
    scene.operations++
    const op = history.begin(this.name, server.nowMs, call)
    let isOver = false
    const end = (answer: Answer) => {
      if (isOver) {
        if (answer.status !== 'unknown') situations.saw('late answer')
        return
      }
      isOver = true
      server.connections.delete(cut)
      history.end(op, server.nowMs, answer)
      then(answer)
    }
    const cut = () => end({ status: 'unknown' })
    const take = (answer: LedgerAnswer) => ('value' in answer ? convert(answer.value) : refusalOf(answer.error.code))
    if (!this.isRemote) {
      const id = server.submit(kind, body, (answer) => {
        const converted = take(answer)
        // Not within the step of the broker that answers.
        world.schedule(0, () => end(converted))
      })
      if (id === null) end({ status: 'refused', code: 'CLOSED' })
      else server.connections.add(cut)
      return
    }
    // What is under way when the process dies goes nowhere.
    const { life } = server
    let firstCopy = true
    const arrive = () => {
      if (server.life !== life) return
      // Of two copies the first to arrive is the one that is answered.
      const isAnswered = firstCopy
      firstCopy = false
      const id = server.submit(kind, body, (answer) => {
        if (!isAnswered) return
        const converted = take(answer)
        if (this.#loses()) {
          situations.saw('answer lost')
          return
        }
        world.schedule(this.#travelMs(), () => end(converted))
      })
      if (id === null && isAnswered) world.schedule(this.#travelMs(), () => end({ status: 'refused', code: 'CLOSED' }))
    }
    if (this.#loses()) situations.saw('request lost')
    else world.schedule(this.#travelMs(), arrive)
    if (isRepeatable && !scene.isHealed && world.chance(swarm.share('repeated-messages', 0.1))) {
      situations.saw('request repeated')
      world.schedule(this.#travelMs(), arrive)
    }
    world.schedule(waitMs + PATIENCE_MS, cut)
    server.connections.add(cut)
  }

  #loses(): boolean {
    return !this.scene.isHealed && this.scene.world.chance(this.scene.swarm.share('lost-messages', 0.08))
  }

  #travelMs(): number {
    const { world, swarm, isHealed } = this.scene
    if (!isHealed && world.chance(swarm.share('slow-network', 0.1))) return world.random() * 3_000
    return world.random() * 4
  }
}

function refusalOf(code: string): Answer {
  return code === 'UNKNOWN' ? { status: 'unknown' } : { status: 'refused', code }
}
