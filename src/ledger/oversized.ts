/**
 * What is too large to be kept: a log keeps values of at most 16 MiB, and a message becomes one value as a delayed job or a
 * dead letter. A request is looked at before anything of it is done, so that one that is refused had no effect.
 */
import { SluiceError } from '../errors.ts'
import { BatchView, MAX_HEADER_BYTES, MAX_KEY_BYTES, MAX_PAYLOAD_BYTES } from '../message-batch.ts'
import type { LedgerRequest } from './requests.ts'

/** As `BatchView.size` counts: the entry, the head and the payload. */
const MAX_SIZE = MAX_PAYLOAD_BYTES + MAX_KEY_BYTES + MAX_HEADER_BYTES + 64

/** Throws PAYLOAD_TOO_LARGE. */
export function refuseOversized(request: LedgerRequest): void {
  if (request.kind === 'append') {
    for (const { batch } of request.body) refuseBatch(batch)
  } else if (request.kind === 'settle') {
    for (const { outcome, outputs } of request.body) {
      if (outcome.kind === 'done' && outcome.result !== undefined) refuseText(outcome.result, 'The result')
      for (const { batch } of outputs ?? []) refuseBatch(batch)
    }
  } else if (request.kind === 'command' && request.body.kind === 'remember') {
    refuseText(request.body.value, 'What `once` is to keep')
  }
}

function refuseBatch(batch: Uint8Array): void {
  if (batch.byteLength <= MAX_SIZE) return
  const view = new BatchView(batch)
  for (let i = 0; i < view.count; i++) if (view.size(i) > MAX_SIZE) refuse('A message', view.size(i))
}

function refuseText(text: string, what: string): void {
  // A UTF-16 unit is at most three bytes of UTF-8.
  if (text.length * 3 <= MAX_PAYLOAD_BYTES) return
  const bytes = Buffer.byteLength(text)
  if (bytes > MAX_PAYLOAD_BYTES) refuse(what, bytes)
}

function refuse(what: string, bytes: number): never {
  throw new SluiceError(
    'PAYLOAD_TOO_LARGE',
    `${what} has ${bytes} bytes, and no engine keeps more than ${MAX_PAYLOAD_BYTES} at once; nothing was stored. Keep large things elsewhere and send their address.`,
    { bytes, limit: MAX_PAYLOAD_BYTES },
  )
}
