/** The entry of the thread that keeps leases over HTTP (heart/heart.ts says why). */
import { workerData } from 'node:worker_threads'
import type { ExtendOutcome } from '../engine/contract.ts'
import { decodeWire, encodeWire } from '../engine/wire.ts'
import { startKeeper } from '../heart/keeper.ts'
import type { HeartData } from './heart.ts'
import { Transport } from './transport.ts'

const { url, credential, seat } = workerData as HeartData
const transport = new Transport(new URL(url), credential)

startKeeper(seat, async (requests, withinMs) => {
  const sent = await transport.call({
    method: 'POST',
    path: '/v1/engine/extend',
    body: encodeWire(requests),
    timeoutMs: withinMs,
  })
  return sent.status === 'answered' ? (decodeWire(sent.body) as readonly ExtendOutcome[]) : null
})
