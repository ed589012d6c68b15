/** What a handler throws to say how its attempt ended. Whatever else it throws is retried after the queue's back-off. */
import { checkOptions, createRules, duration, invalidOption, type Rule } from './options-check.ts'

const anyText: Rule = (value, name) => {
  if (typeof value !== 'string') throw invalidOption(name, value, 'text')
}
const RULES = createRules({ delayMs: duration(0), message: anyText, cause: () => {} })

export interface RetryLaterOptions {
  /** Milliseconds until the next attempt, 0 to ten years. 0 retries at once. The attempt counts. */
  readonly delayMs: number
  /** Shown with the job. @default 'Retry later' */
  readonly message?: string
  readonly cause?: unknown
}

/** Thrown by a handler: this attempt failed, and the next comes after `delayMs` rather than after the back-off. */
export class RetryLater extends Error {
  override readonly name = 'RetryLater'
  readonly delayMs: number

  constructor(options: RetryLaterOptions) {
    super(options?.message ?? 'Retry later', options?.cause === undefined ? undefined : { cause: options.cause })
    checkOptions(options, RULES, 'RetryLater')
    if (options?.delayMs === undefined) throw invalidOption('delayMs', undefined, 'given')
    this.delayMs = options.delayMs
  }
}

/** Thrown by a handler: no attempt will succeed. The message is out of attempts at once (P4: dead letter, or blocked). */
export class Unrecoverable extends Error {
  override readonly name = 'Unrecoverable'

  constructor(message: string, options?: { readonly cause?: unknown }) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause })
  }
}

const MAX_ERROR_CHARACTERS = 2_000

/** An error as it is kept with a job: `name: message`, cut. Never throws, whatever was thrown. */
export function describeError(error: unknown): string {
  let text: string
  try {
    text =
      error instanceof Error
        ? `${error.name}: ${error.message}`
        : `Thrown: ${typeof error === 'string' ? error : JSON.stringify(error)}`
  } catch {
    text = `Thrown: ${typeof error}`
  }
  return text.length > MAX_ERROR_CHARACTERS ? `${text.slice(0, MAX_ERROR_CHARACTERS - 1)}…` : text
}
