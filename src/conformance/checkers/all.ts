/** Every checker, in the order in which verdicts are shown. */
import { atomicOutputs } from './atomic-outputs.ts'
import { boundedDepth } from './bounded-depth.ts'
import { boundedDuplicates } from './bounded-duplicates.ts'
import type { Checker } from './checker.ts'
import { conservation } from './conservation.ts'
import { exclusive } from './exclusive.ts'
import { fencing } from './fencing.ts'
import { idempotency } from './idempotency.ts'
import { integrity } from './integrity.ts'
import { jobPhase } from './job-phase.ts'
import { keyOrder } from './key-order.ts'
import { noAcknowledgedLoss } from './no-acknowledged-loss.ts'
import { noEarlyDelivery } from './no-early-delivery.ts'
import { noPhantom } from './no-phantom.ts'
import { offsetAgreement } from './offset-agreement.ts'
import { onceKept } from './once-kept.ts'
import { risingReads } from './rising-reads.ts'
import { settleFinality } from './settle-finality.ts'
import { waitsEnd } from './waits-end.ts'

export const CHECKERS: readonly Checker[] = [
  noAcknowledgedLoss,
  noPhantom,
  integrity,
  boundedDuplicates,
  keyOrder,
  noEarlyDelivery,
  exclusive,
  fencing,
  settleFinality,
  jobPhase,
  offsetAgreement,
  risingReads,
  boundedDepth,
  conservation,
  idempotency,
  atomicOutputs,
  onceKept,
  waitsEnd,
]
