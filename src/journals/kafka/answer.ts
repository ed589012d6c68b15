/** What a request to Kafka comes to: an outcome is a value, so that each caller says what it does about which. */
import type { MultipleErrors } from '@platformatic/kafka'

/**
 * The broker's own words (`NOT_LEADER_OR_FOLLOWER`, …), or ours where it said nothing: `NETWORK` (no connection, or it
 * broke), `TIMEOUT`, `AUTHENTICATION`, `TLS`, `NO_LEADER` and `OTHER`.
 */
export interface Failure {
  readonly ok: false
  readonly code: string
  /** Whether the request may have been carried out. */
  readonly wasSent: boolean
  /** For people; without credentials. */
  readonly text: string
}

export type Answer<T> = { readonly ok: true; readonly value: T } | Failure

interface LibraryError extends Error {
  readonly apiId?: string
  readonly code?: string
  readonly serverErrorMessage?: string | null
}

/** Sorts what the client library throws. */
export function readFailure(error: unknown, wasSent: boolean): Failure {
  const chain = [...walk(error)]
  const said = chain.find(({ apiId }) => apiId !== undefined)
  const words = chain.map(({ message }) => message).filter((message, at, all) => message && all.indexOf(message) === at)
  const text = said?.serverErrorMessage || words.slice(-1)[0] || String(error)
  const fail = (code: string): Failure => ({ ok: false, code, wasSent, text })
  if (chain.some((one) => isTls(one))) return fail('TLS')
  // A connection that breaks while credentials are exchanged says nothing of them.
  const refusal = chain.findIndex(({ code }) => code === 'PLT_KFK_AUTHENTICATION')
  const isRefused = refusal >= 0 && !chain.slice(refusal + 1).some(({ code }) => code === 'PLT_KFK_NETWORK')
  if (isRefused) return fail('AUTHENTICATION')
  if (said?.apiId !== undefined) return fail(said.apiId)
  if (chain.some(({ name, message }) => name === 'TimeoutError' || / timed out/.test(message))) return fail('TIMEOUT')
  if (chain.some(({ code }) => code === 'PLT_KFK_NETWORK' || code === 'PLT_KFK_UNEXPECTED_CORRELATION_ID'))
    return fail('NETWORK')
  return fail('OTHER')
}

function* walk(error: unknown): Generator<LibraryError> {
  for (let at = error; at instanceof Error; at = at.cause) {
    yield at as LibraryError
    for (const one of (at as MultipleErrors).errors ?? []) yield* walk(one)
  }
}

/** A certificate that is not trusted, or one side that speaks TLS to one that does not. */
function isTls({ code, message }: LibraryError): boolean {
  return (
    /^(CERT_|ERR_TLS|ERR_SSL|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_)/.test(code ?? '') ||
    message === 'Broker requires TLS.' ||
    message.startsWith('TLS handshake failed')
  )
}
