/**
 * What each route asks of its caller, as data beside the route: `{ config: { access } }`. A route without it does not
 * start, so that none is open by forgetting.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { SluiceError } from '../../errors.ts'
import { parseJobId } from '../../index.ts'
import type { Caller, Scope } from './scopes.ts'

export type Access =
  /** Needs no credential. */
  | 'open'
  /** Needs a credential; what it may see and do, the handler asks of `request.caller` name by name. */
  | 'named in the call'
  /** Needs a scope on the queue or topic in that parameter of the path. */
  | { readonly scope: Scope | 'any'; readonly of: 'queue' | 'topic' | 'name' }
  /** Needs one of the scopes on the queue of the job in the parameter `id`, which else is not found. */
  | { readonly scopes: readonly Scope[]; readonly of: 'job' }
  /** Needs a scope on every name. */
  | { readonly scope: Scope; readonly of: 'everything' }

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the route asks of its caller. */
    access?: Access
  }
  interface FastifyRequest {
    /** Who calls; there once the guard let the call in, but not on routes that are `open`. */
    caller: Caller
  }
}

/** What a route asks, in words: `publish on {queue}`. */
export function describeAccess(access: Access): string {
  if (access === 'open') return 'nothing'
  if (access === 'named in the call') return 'a key; each name in it is checked'
  if (access.of === 'everything') return `${access.scope} on every name`
  if (access.of === 'job') return `${access.scopes.join(' or ')} on its queue`
  return `${access.scope === 'any' ? 'any scope' : access.scope} on {${access.of}}`
}

/** Sees to it that no route is added without saying what it asks. */
export function demandAccess(app: FastifyInstance): void {
  app.addHook('onRoute', ({ method, url, config }) => {
    if (config?.access === undefined)
      throw new Error(`The route ${method} ${url} does not say what it asks of its caller: give it config.access.`)
  })
}

/** Throws `FORBIDDEN`, or `JOB_NOT_FOUND` for a job of a queue that the caller does not see. */
export function checkAccess(access: Access, caller: Caller, request: FastifyRequest): void {
  if (typeof access === 'string') return
  const params = request.params as Record<string, string>
  if (access.of === 'everything') return caller.requireEverywhere(access.scope)
  if (access.of !== 'job') {
    const name = params[access.of] ?? ''
    return access.scope === 'any' ? caller.requireAny(name) : caller.require(access.scope, name)
  }
  const id = params.id ?? ''
  if (isHiddenJob(id, caller, access.scopes)) throw noJob(id)
}

/** Whether a job is as if it were not there, for this caller. Throws `FORBIDDEN` where it is seen and no more. */
export function isHiddenJob(id: string, caller: Caller, scopes: readonly Scope[]): boolean {
  const queue = parseJobId(id)?.queue
  // What is no id at all is answered by the handler.
  if (queue === undefined) return false
  if (!caller.sees(queue)) return true
  if (!scopes.some((scope) => caller.may(scope, queue))) caller.require(scopes[0] as Scope, queue)
  return false
}

export function noJob(id: string): SluiceError {
  return new SluiceError(
    'JOB_NOT_FOUND',
    `There is no job '${id.slice(0, 200)}'. The id is of another data folder, or the job was settled longer ago than \`retention\` keeps.`,
  )
}
