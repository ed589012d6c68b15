/**
 * A declaration that is made when it is first needed, so that `sluice.queue()` answers at once.
 *
 *     changed -> declaring -> declared
 *        ^          |            |
 *        +--failed--+  +--change-+
 *
 * `changed` is also where a noun begins. A failed declaration is told to whoever waited for it and is made again at the
 * next use. Invariant: one declaration is under way at a time, with the newest settings.
 */
import type { Declaration, Engine } from './engine/contract.ts'
import { SluiceError } from './errors.ts'
import { offsetError } from './outcomes.ts'

/** What a declaration came to. */
export interface DeclaredAs {
  /** Whether this declaration made it. */
  readonly created: boolean
  /** The settings in force, complete. */
  readonly settings: object
}

type Settings = Readonly<Record<string, unknown>>

export class Declared {
  /** Part of the ids of a queue's jobs; '' until declared. */
  tag = ''
  readonly #engine: Engine
  readonly #declaration: Declaration
  /** All that were given, for when it must be declared anew. */
  #settings: Settings
  /** Those that the engine does not have yet. What others changed meanwhile is not reset by what was sent before. */
  #unsent: Settings
  #isCurrent = false
  #underWay: Promise<DeclaredAs> | null = null

  constructor(engine: Engine, declaration: Declaration) {
    this.#engine = engine
    this.#declaration = declaration
    this.#settings = declaration.settings
    this.#unsent = declaration.settings
  }

  /** Whether the engine has the newest settings, so that nothing need be waited for. */
  get isCurrent(): boolean {
    return this.#isCurrent
  }

  /** Adds settings to those declared; the next use declares them. */
  change(settings: Settings): void {
    this.#settings = mergeSettings(this.#settings, settings)
    this.#unsent = mergeSettings(this.#unsent, settings)
    this.#isCurrent = false
  }

  /** The engine does not know it any more. */
  forget(): void {
    this.#unsent = this.#settings
    this.#isCurrent = false
  }

  /** Declares, where that is still to be done. */
  async ensure(): Promise<void> {
    while (!this.#isCurrent) await this.declare()
  }

  /** Declares, whether or not that was done before. */
  declare(): Promise<DeclaredAs> {
    this.#underWay ??= this.#declare().finally(() => {
      this.#underWay = null
    })
    return this.#underWay
  }

  async #declare(): Promise<DeclaredAs> {
    const settings = this.#unsent
    const declaration = this.#declaration
    const [outcome] = await this.#engine.declare([{ ...declaration, settings } as Declaration])
    switch (outcome?.status) {
      case 'declared':
        this.tag = outcome.tag
        if (settings === this.#unsent) {
          this.#unsent = {}
          this.#isCurrent = true
        }
        return { created: outcome.created, settings: outcome.settings }
      case 'conflict':
        throw new SluiceError(
          'DECLARED_DIFFERENTLY',
          `${outcome.message}. Use the existing setting, or another name.`,
          {
            [declaration.kind]: declaration.name,
          },
        )
      case 'truncated':
      case 'out-of-range':
        throw offsetError(declaration.kind === 'group' ? declaration.topic : declaration.name, outcome)
      default:
        throw new SluiceError('TOPIC_NOT_FOUND', `There is no topic for the ${declaration.kind} '${declaration.name}'.`)
    }
  }
}

/** `added` over `settings`; of settings that have parts, part by part. */
function mergeSettings(settings: Settings, added: Settings): Settings {
  const merged: Record<string, unknown> = { ...settings }
  for (const [name, value] of Object.entries(added)) {
    const before = merged[name]
    const hasParts = typeof value === 'object' && value !== null && typeof before === 'object' && before !== null
    merged[name] = hasParts ? { ...before, ...value } : value
  }
  return merged
}
