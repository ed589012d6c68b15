/**
 * What an engine promises, as data. The suite proves what is claimed, checks that what is refused fails with its code,
 * and measures what is emulated; the documentation prints the same table.
 */
import type { Durability } from '../logs/contract.ts'

/** Kept by the store itself, kept by other means at a stated cost, or refused with `UNSUPPORTED`. */
export type Ability = 'native' | 'emulated' | 'refused'

export interface EngineAbilities {
  /** P1: what an acknowledgement means. */
  readonly durability: Durability
  /** P1: on how many machines. */
  readonly copies: number
  /** P2, P5: what was acknowledged and what is held survives the process. */
  readonly persistence: Ability
  /** P4: messages of one key one at a time, in order. */
  readonly keyOrder: Ability
  /** P4: three classes. */
  readonly priority: Ability
  /** P4: delayed jobs. */
  readonly delay: Ability
  /** P6: offsets, replay, groups. */
  readonly replay: Ability
  /** P7: the limit holds exactly (native) or with a measured overshoot (emulated). */
  readonly admission: Ability
  /** P8: idempotent publish. */
  readonly idempotency: Ability
  /** P9: outputs and settle in one step. */
  readonly atomicOutputs: Ability
  /** More than one partition to a topic. */
  readonly partitions: Ability
}
