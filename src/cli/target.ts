/**
 * Where `sluice publish` sends to: a server, or a folder that it opens itself. Both take the same lines and give an
 * outcome for each, in order.
 */
import { SluiceError } from '../errors.ts'
import type { Client } from './client.ts'
import { parseObject } from './client.ts'

/** One message: an object with `payload`, as a line of a batch has it, in JSON text. */
export type Line = string

export type LineOutcome =
  | { readonly isStored: true; readonly isDuplicate: boolean; readonly receipt: Readonly<Record<string, unknown>> }
  | { readonly isStored: false; readonly code: string; readonly detail: string; readonly retryAfterMs: number | null }

export interface Target {
  /** Throws where nothing is known of any line. */
  send(lines: readonly Line[]): Promise<readonly LineOutcome[]>
  close(): Promise<void>
}

/** The queue or topic of a server. */
export function createServerTarget(client: Client, kind: 'queue' | 'topic', name: string): Target {
  const path =
    kind === 'queue' ? `/v1/queues/${encodeURIComponent(name)}/jobs` : `/v1/topics/${encodeURIComponent(name)}/messages`
  return {
    async send(lines) {
      try {
        const body = await client.call(path, {
          method: 'POST',
          headers: { 'content-type': 'application/x-ndjson' },
          body: lines.join('\n'),
        })
        return body
          .trimEnd()
          .split('\n')
          .map((line) => readOutcome(parseObject(line)))
      } catch (error) {
        // One answer for all of them: nothing of the batch was stored.
        if (!(error instanceof SluiceError) || typeof error.details.lines !== 'number') throw error
        return lines.map(() => refusal(error.code, error.message, error.details.retryAfterMs))
      }
    },
    async close() {},
  }
}

function readOutcome({ outcome, problem, ...receipt }: Record<string, unknown>): LineOutcome {
  if (outcome !== 'refused') return { isStored: true, isDuplicate: outcome === 'duplicate', receipt }
  const { code, detail, retryAfterMs } = Object(problem) as Record<string, unknown>
  return refusal(String(code), String(detail), retryAfterMs)
}

function refusal(code: string, detail: string, retryAfterMs: unknown): LineOutcome {
  return { isStored: false, code, detail, retryAfterMs: typeof retryAfterMs === 'number' ? retryAfterMs : null }
}
