/**
 * What a caller may do. A grant is a scope on the names that a pattern matches; a caller has a few of them. The name of a
 * queue or topic is the boundary: who may publish to a queue may ask for any of its jobs, and cancel them.
 *
 *     publish   add jobs and messages, ask for jobs and cancel them; the first use of a name makes it
 *     consume   lease, extend and settle; declare groups; ask for jobs
 *     read      see messages and dead letters; ask for jobs
 *     admin     all of these, and change settings, pause, redrive, discard, seek, forget
 *     any       of them shows that the name is there, and its figures
 *
 * In a pattern `*` stands for any run of characters and everything else for itself. It is matched without back-tracking.
 */
import { SluiceError } from '../../errors.ts'

export const SCOPES = ['publish', 'consume', 'read', 'admin'] as const
export type Scope = (typeof SCOPES)[number]

export interface Grant {
  readonly scope: Scope
  /** Such as `orders.*`; `*` is every name. */
  readonly pattern: string
}

const PATTERN = /^[A-Za-z0-9*][A-Za-z0-9._*-]{0,127}$/

/** `publish:orders.*` as a grant, `read` as one on every name; null where the text is neither. */
export function parseGrant(text: string): Grant | null {
  const colon = text.indexOf(':')
  const scope = colon < 0 ? text : text.slice(0, colon)
  const pattern = colon < 0 ? '*' : text.slice(colon + 1)
  return SCOPES.includes(scope as Scope) && PATTERN.test(pattern) ? { scope: scope as Scope, pattern } : null
}

export function formatGrant({ scope, pattern }: Grant): string {
  return `${scope}:${pattern}`
}

/** Whether `name` is one that `pattern` stands for. */
export function matchesPattern(pattern: string, name: string): boolean {
  const [first = '', ...rest] = pattern.split('*')
  const last = rest.pop()
  if (last === undefined) return name === pattern
  if (!name.startsWith(first) || name.length < first.length + last.length) return false
  let at = first.length
  for (const piece of rest) {
    const found = name.indexOf(piece, at)
    if (found < 0) return false
    at = found + piece.length
  }
  return name.length - last.length >= at && name.endsWith(last)
}

/** Names of Sluice's own queues begin so. */
const OWN = 'sluice.'

/**
 * Whether a grant is for that name. What Sluice keeps for itself, such as callbacks with their URLs, is not meant by a
 * pattern for everything, unless it is an admin's.
 */
function covers({ scope, pattern }: Grant, name: string): boolean {
  return matchesPattern(pattern, name) && (!name.startsWith(OWN) || scope === 'admin' || pattern.startsWith(OWN))
}

/** Who calls, as the server knows it. */
export class Caller {
  /** The id of the key; '' where the server asks for none. It is the scope of idempotency keys, and part of every lease. */
  readonly id: string
  readonly grants: readonly Grant[]

  constructor(id: string, grants: readonly Grant[]) {
    this.id = id
    this.grants = grants
  }

  may(scope: Scope, name: string): boolean {
    return this.grants.some((grant) => (grant.scope === scope || grant.scope === 'admin') && covers(grant, name))
  }

  /** The same for every name, be it there or not. */
  mayEverywhere(scope: Scope): boolean {
    return this.grants.some(
      (grant) => (grant.scope === scope || grant.scope === 'admin') && /^\*+$/.test(grant.pattern),
    )
  }

  /** Whether there may be a thing of this name, as far as the caller is told. */
  sees(name: string): boolean {
    return this.grants.some((grant) => covers(grant, name))
  }

  /** Throws `FORBIDDEN`. It does not look whether there is such a name, so the answer does not tell. */
  require(scope: Scope, name: string): void {
    if (!this.may(scope, name)) throw forbidden(this, scope, name)
  }

  requireAny(name: string): void {
    if (!this.sees(name)) throw forbidden(this, 'any', name)
  }

  requireEverywhere(scope: Scope): void {
    if (!this.mayEverywhere(scope)) throw forbidden(this, scope, '*')
  }
}

/** Where no credentials are asked for. */
export const ANYONE = new Caller('', [{ scope: 'admin', pattern: '*' }])

function forbidden({ id }: Caller, scope: Scope | 'any', name: string): SluiceError {
  const what = scope === 'any' ? `no scope on '${clip(name)}'` : `not the scope ${scope}:${clip(name)}`
  return new SluiceError('FORBIDDEN', `The key ${id} may not do this: it has ${what}.`, {
    scope: `${scope}:${clip(name)}`,
  })
}

function clip(name: string): string {
  return name.length > 128 ? `${name.slice(0, 128)}…` : name
}
