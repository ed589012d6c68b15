/**
 * What a route says of itself: one `Operation` each, from which the OpenAPI document is made.
 *
 * It is not a second description. The readers in it are those that its handler reads the request with (`readParams`,
 * `readQuery`, `readBody` fail loudly where a handler takes others), and each carries the schema of what it lets
 * through. What a request has beyond them is refused. Every answer that the tests see is checked against `answers` and
 * `errors`.
 */
import assert from 'node:assert/strict'
import type { FastifyRequest } from 'fastify'
import type { ErrorCode } from '../../errors.ts'
import type { JsonSchema } from '../../json-schema.ts'
import type { Access } from '../access/route-access.ts'
import { readControl } from '../bodies.ts'
import { membersSchema, type Read, type Readers, readMembers } from '../members.ts'

export interface Operation {
  /** Unique, a verb and a noun: `addJob`. */
  readonly id: string
  /** Under what it stands in the document. */
  readonly tag: string
  /** What it does, one sentence. */
  readonly summary: string
  readonly description?: string
  /** What it asks of its caller. */
  readonly access: Access
  /** Parts of the path. */
  readonly params?: Readers
  readonly query?: Readers
  /** Headers that mean something to this route, besides those of HTTP. */
  readonly headers?: Readers
  readonly body?: Body
  readonly answers: { readonly [status: number]: Answer }
  /** Codes that this route may answer with, besides those that every route may (`document.ts`). */
  readonly errors?: readonly ErrorCode[]
}

export interface Body {
  readonly isRequired: boolean
  /** By content type. */
  readonly content: Readonly<Record<string, JsonSchema>>
  /** Of a control body. */
  readonly readers?: Readers
}

export interface Answer {
  readonly description: string
  /** By content type; absent: no body. */
  readonly content?: Readonly<Record<string, JsonSchema>>
  readonly headers?: Readonly<Record<string, Described>>
}

export interface Described {
  readonly description: string
  readonly schema: JsonSchema
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the route says of itself. Every route has one, but those that only refuse a method. */
    operation?: Operation
    /** It only refuses a method that the path does not take. */
    isRefusal?: true
  }
  interface FastifyRequest {
    /** Of its route; there from the first hook on. */
    operation: Operation | undefined
  }
}

/** The options of a route that is this operation. */
export function describe(operation: Operation): { config: { operation: Operation; access: Access } } {
  return { config: { operation, access: operation.access } }
}

/** A body that controls the server: a JSON object with these members. It may be left out where each of them may. */
export function controlBody(readers: Readers): Body {
  const schema = membersSchema(readers)
  return { isRequired: schema.required !== undefined, content: { 'application/json': schema }, readers }
}

/** An answer that is JSON. */
export function json(description: string, schema: JsonSchema, headers?: Answer['headers']): Answer {
  return { description, content: { 'application/json': schema }, ...(headers === undefined ? {} : { headers }) }
}

const NO_MEMBERS = {}

/** The parts of the path. */
export function readParams<R extends Readers>(request: FastifyRequest, readers: R): Read<R> {
  assert(request.operation?.params === readers, 'a handler reads the path as its route says')
  return readMembers(request.params, readers, 'the path')
}

export function readQuery<R extends Readers>(request: FastifyRequest, readers: R): Read<R> {
  assert(request.operation?.query === readers, 'a handler reads the query as its route says')
  return readMembers(request.query, readers, 'the query')
}

/** A control body, parsed, and its text: for routes that cut parts out of it. */
export function readBodyText(request: FastifyRequest, readers: Readers): ReturnType<typeof readControl> {
  assert(request.operation?.body?.readers === readers, 'a handler reads the body as its route says')
  return readControl(request)
}

/** Refuses a query that the route does not read, before anything is done for the request. */
export function checkQuery(request: FastifyRequest): void {
  const { operation } = request
  // Nearly every call that changes something has none and takes none.
  if (operation !== undefined && operation.query === undefined && !request.url.includes('?')) return
  if (operation !== undefined) readMembers(request.query, operation.query ?? NO_MEMBERS, 'the query')
}

/** The members of a control body; `where` says what it is, such as "a lease request". */
export function readBody<R extends Readers>(request: FastifyRequest, readers: R, where: string): Read<R> {
  return readMembers(readBodyText(request, readers).value, readers, where)
}
