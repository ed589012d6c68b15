/**
 * Schemas: any Standard Schema (zod, valibot, arktype).
 *
 * A payload is validated before it is stored, and the schema's output is what is stored: a job that is in the queue is
 * valid, handlers get what was checked, and a default or a transformation is applied once, not at each attempt. The
 * output goes through JSON like any payload: a Date that a schema makes arrives at the handler as text.
 */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { isSluiceError, SluiceError } from './errors.ts'
import { firstLine } from './payload.ts'

/** A schema of any library that follows Standard Schema. */
export type Schema<In = unknown, Out = In> = StandardSchemaV1<In, Out>

/** One place where a payload does not match. */
export interface SchemaIssue {
  /** Keys and indexes from the payload down; empty: the payload itself. */
  readonly path: readonly (string | number)[]
  readonly message: string
}

/** More would help nobody, and a hostile payload could have a million. */
const MAX_ISSUES = 100

/**
 * The schema's output, at once where the schema answers at once. Throws or rejects with `SCHEMA_MISMATCH`, also where the
 * schema itself fails.
 */
export function validatePayload(schema: Schema, value: unknown): unknown {
  try {
    const result = schema['~standard'].validate(value)
    return result instanceof Promise ? result.then(takeOutput).catch(rethrow) : takeOutput(result)
  } catch (error) {
    return rethrow(error)
  }
}

function rethrow(error: unknown): never {
  if (isSluiceError(error)) throw error
  const message = `The schema failed on the payload: ${firstLine(error)}. Nothing was stored.`
  throw new SluiceError('SCHEMA_MISMATCH', message, { issues: [] }, error)
}

function takeOutput(result: StandardSchemaV1.Result<unknown>): unknown {
  if (result.issues === undefined) return result.value
  const issues = result.issues.slice(0, MAX_ISSUES).map(readIssue)
  const first = issues[0]
  const more = result.issues.length > 1 ? ` (and ${result.issues.length - 1} more)` : ''
  const where =
    first === undefined || first.path.length === 0 ? 'The payload' : `The payload at '${first.path.join('.')}'`
  throw new SluiceError(
    'SCHEMA_MISMATCH',
    `${where} does not match the schema: ${first?.message}${more}. Nothing was stored.`,
    { issues },
  )
}

function readIssue(issue: StandardSchemaV1.Issue): SchemaIssue {
  const path = (issue.path ?? []).map((segment) => {
    const key = typeof segment === 'object' ? segment.key : segment
    return typeof key === 'symbol' ? String(key) : key
  })
  return { path, message: issue.message }
}
