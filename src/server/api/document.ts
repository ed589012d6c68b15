/**
 * The OpenAPI 3.1 document, made of what the routes say of themselves (`operation.ts`). Its schemas are JSON Schema
 * 2020-12, which OpenAPI 3.1 takes as they are.
 */
import assert from 'node:assert/strict'
import type { FastifyInstance } from 'fastify'
import { ERRORS, type ErrorCode } from '../../errors.ts'
import type { JsonSchema } from '../../json-schema.ts'
import { describeAccess } from '../access/route-access.ts'
import { COOKIE } from '../access/sessions.ts'
import { isRequired, type Readers } from '../members.ts'
import type { Answer, Operation } from './operation.ts'
import { SCHEMAS } from './schemas.ts'

export interface Route {
  readonly method: string
  /** As OpenAPI writes it: `/v1/jobs/{id}`. */
  readonly path: string
  readonly operation: Operation
}

export const OPENAPI_TYPE = 'application/vnd.oai.openapi+json; version=3.1; charset=utf-8'
const PROBLEM_TYPE = 'application/problem+json'

/** What any route may answer: the request cannot be read, may not be made, or came at the wrong moment. */
const EVERY: readonly ErrorCode[] = [
  'BAD_REQUEST',
  'INVALID_OPTION',
  'FORBIDDEN_ORIGIN',
  'OVERLOADED',
  'CLOSED',
  'ENGINE_FAILED',
  'ENGINE_CHANGED',
  'UNREACHABLE',
  'CORRUPT',
  'UNKNOWN',
]
const WITH_BODY: readonly ErrorCode[] = ['PAYLOAD_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE']
/** None where the server asks for no credentials; `x-sluice-access` says which scope of a key a call needs. */
const SECURITY = {
  key: { type: 'http', scheme: 'bearer', description: 'An API key of `sluice keys create`' },
  session: { type: 'apiKey', in: 'cookie', name: COOKIE, description: 'The session of a browser' },
}
/** Statuses that HTTP has for requests that never became one. */
const BEFORE_ANY_ROUTE = {
  408: 'The request took too long to arrive',
  431: 'The headers are larger than 16 KiB',
}

/** Notes the operations as routes are added. A route that says nothing of itself is a bug of ours. */
export function collectRoutes(app: FastifyInstance): readonly Route[] {
  const routes: Route[] = []
  app.addHook('onRoute', ({ url, method, config }) => {
    const { operation, isRefusal } = config ?? {}
    if (isRefusal) return
    assert(operation !== undefined, `the route ${method} ${url} says what it does`)
    for (const one of [method].flat()) if (one !== 'HEAD') routes.push({ method: one, path: pathOf(url), operation })
  })
  return routes
}

/** `/v1/queues/:queue(^[^:/]*)::pause`, as the router writes it, is `/v1/queues/{queue}:pause`. */
export function pathOf(url: string): string {
  return url.replace(/::|:(\w+)(?:\([^)]*\))?/g, (_colons, name?: string) => (name === undefined ? ':' : `{${name}}`))
}

/** The codes that a route may answer with, by status. */
export function errorsOf({ method, operation: { access, params = {}, errors = [] } }: Route): Map<number, ErrorCode[]> {
  const names = Object.values(params).some(({ schema }) => schema?.pattern !== undefined)
  const codes = new Set<ErrorCode>([
    ...EVERY,
    ...(names ? (['INVALID_NAME'] as const) : []),
    ...(access === 'open' ? [] : (['UNAUTHENTICATED', 'FORBIDDEN'] as const)),
    ...(method === 'GET' ? [] : WITH_BODY),
    ...errors,
  ])
  return Map.groupBy([...codes].sort(), (code) => ERRORS[code].status)
}

export function makeDocument(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {}
  const ids = new Set<string>()
  for (const route of routes) {
    const { method, path, operation } = route
    assert(!ids.has(operation.id), `two routes are the operation ${operation.id}`)
    ids.add(operation.id)
    paths[path] ??= {}
    ;(paths[path] as Record<string, object>)[method.toLowerCase()] = showOperation(route)
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'Sluice',
      version,
      description:
        'Durable queues and topics over HTTP. Times are milliseconds; a payload comes out as the bytes that were sent; every error is application/problem+json with a `code`.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    tags: [...new Set(routes.map(({ operation }) => operation.tag))].map((name) => ({ name })),
    paths,
    components: { securitySchemes: SECURITY, schemas: { ...SCHEMAS, Problem: problemSchema() } },
  }
}

function showOperation(route: Route): object {
  const {
    id,
    tag,
    access,
    summary,
    description,
    params = {},
    query = {},
    headers = {},
    body,
    answers,
  } = route.operation
  const parameters = [
    ...showParameters('path', params),
    ...showParameters('query', query),
    ...showParameters('header', headers),
  ]
  return {
    operationId: id,
    tags: [tag],
    'x-sluice-access': describeAccess(access),
    ...(access === 'open' ? {} : { security: [{}, { key: [] }, { session: [] }] }),
    summary,
    ...(description === undefined ? {} : { description }),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined ? {} : { requestBody: { required: body.isRequired, content: showContent(body.content) } }),
    responses: mergeAnswers(showErrors(route), showAnswers(answers)),
  }
}

function showParameters(place: 'path' | 'query' | 'header', readers: Readers): object[] {
  return Object.entries(readers).map(([name, read]) => {
    const { description, ...schema } = read.schema ?? {}
    return {
      name,
      in: place,
      required: place === 'path' || isRequired(read),
      ...(description === undefined ? {} : { description }),
      schema,
    }
  })
}

function showAnswers(answers: Operation['answers']): Record<string, Shown> {
  return Object.fromEntries(
    Object.entries(answers).map(([status, { description, content, headers }]: [string, Answer]) => [
      status,
      {
        description,
        ...(headers === undefined ? {} : { headers }),
        ...(content === undefined ? {} : { content: showContent(content) }),
      },
    ]),
  )
}

/** A status may stand for an error and for an answer of its own: `GET /readyz` tells why in the form of its 200. */
function mergeAnswers(errors: Record<string, Shown>, answers: Record<string, Shown>): Record<string, Shown> {
  const merged = { ...errors }
  for (const [status, answer] of Object.entries(answers)) {
    const error = errors[status]
    merged[status] =
      error === undefined
        ? answer
        : {
            ...error,
            description: `${answer.description}. ${error.description}`,
            content: { ...answer.content, ...error.content },
          }
  }
  return merged
}

interface Shown {
  readonly description: string
  readonly headers?: object
  readonly content?: Record<string, { schema: JsonSchema }>
}

function showErrors(route: Route): Record<string, Shown> {
  const shown: Record<string, Shown> = {}
  for (const [status, codes] of errorsOf(route)) shown[status] = problemAnswer(status, codes)
  for (const [status, description] of Object.entries(BEFORE_ANY_ROUTE))
    shown[status] = { ...problemAnswer(Number(status), ['BAD_REQUEST']), description }
  return shown
}

function problemAnswer(status: number, codes: readonly ErrorCode[]): Shown {
  return {
    description: codes.map((code) => `\`${code}\`: ${ERRORS[code].title}.`).join('\n\n'),
    ...(status === 503
      ? { headers: { 'Retry-After': { description: 'Whole seconds', schema: { type: 'integer', minimum: 1 } } } }
      : {}),
    content: {
      [PROBLEM_TYPE]: {
        schema: {
          $ref: '#/components/schemas/Problem',
          properties: { code: { enum: codes }, status: { const: status } },
        },
      },
    },
  }
}

function showContent(content: Readonly<Record<string, JsonSchema>>): Record<string, { schema: JsonSchema }> {
  return Object.fromEntries(Object.entries(content).map(([type, schema]) => [type, { schema }]))
}

function problemSchema(): JsonSchema {
  return {
    type: 'object',
    description: 'RFC 9457. Beside these members stand the values of the instance, such as `depth` and `retryAfterMs`.',
    required: ['type', 'title', 'status', 'code', 'detail'],
    properties: {
      type: { type: 'string', pattern: '^urn:sluice:error:[A-Z_]+$' },
      title: { type: 'string' },
      status: { type: 'integer', minimum: 400, maximum: 599 },
      code: { enum: Object.keys(ERRORS) },
      detail: { type: 'string' },
      retryAfterMs: { type: 'number', minimum: 0 },
    },
  }
}
