/**
 * Checks answers of a server against its own OpenAPI document: the status is one that the operation lists, the body has
 * the form that stands there, an error has a code that stands there. The harness checks every answer of every test.
 */
import { ok } from 'node:assert/strict'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'

export interface Seen {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly status: number
  readonly type: string | null
  readonly text: string
}

interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required: boolean
  readonly schema: object
}

export interface OperationObject {
  readonly operationId: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly required: boolean; readonly content: Readonly<Record<string, { schema: object }>> }
  readonly responses: Readonly<
    Record<string, { description: string; headers?: object; content?: Readonly<Record<string, { schema: object }>> }>
  >
}

export interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, OperationObject>>>>
  readonly components: { readonly schemas: Readonly<Record<string, object>> }
}

export class AnswerChecks {
  readonly document: Document
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false })
  readonly #validators = new Map<string, ValidateFunction>()
  readonly #paths: readonly { readonly pattern: RegExp; readonly path: string }[]

  constructor(document: Document) {
    this.document = document
    this.#ajv.addSchema(document, 'openapi')
    this.#paths = Object.keys(document.paths)
      .map((path) => ({ path, pattern: patternOf(path) }))
      // What is written out goes before what stands for anything.
      .sort((a, b) => a.path.split('{').length - b.path.split('{').length || b.path.length - a.path.length)
  }

  /** The operation that a request is, if any. */
  find(method: string, path: string): { readonly path: string; readonly operation: OperationObject } | null {
    const [plain = ''] = path.split('?')
    for (const { pattern, path: known } of this.#paths) {
      const operation = this.document.paths[known]?.[method.toLowerCase()]
      if (operation !== undefined && pattern.test(plain)) return { path: known, operation }
    }
    return null
  }

  /** Throws what is wrong with an answer. */
  check({ method, path, status, type, text }: Seen): void {
    const what = `${method} ${path.slice(0, 200)} answered ${status} ${type ?? 'without a body'}: ${text.slice(0, 500)}`
    if (status >= 400 && !(status === 503 && path.startsWith('/readyz'))) {
      ok(type?.startsWith('application/problem+json'), `not a problem document: ${what}`)
      this.#validate('#/components/schemas/Problem', JSON.parse(text), what)
    }
    // What is no route, and no method of one, stands nowhere.
    if (status === 405 || text.includes('"code":"NOT_FOUND"')) return
    const found = this.find(method, path)
    if (found === null) {
      // HEAD is GET without a body.
      ok((status >= 400 && status < 500) || method === 'HEAD', `not documented: ${what}`)
      return
    }
    const answer = found.operation.responses[status]
    ok(answer !== undefined, `the status is not documented: ${what}`)
    if (status === 204 || answer.content === undefined) {
      ok(text === '', `a body that is not documented: ${what}`)
      return
    }
    const [plainType = ''] = (type ?? '').split(';')
    ok(answer.content[plainType] !== undefined, `the content type is not documented: ${what}`)
    const place = ['paths', found.path, method.toLowerCase(), 'responses', `${status}`, 'content', plainType, 'schema']
    const pointer = `#/${place.map(escapePointer).join('/')}`
    const isLines = plainType === 'application/x-ndjson'
    const values = isLines ? text.split('\n').filter((line) => line !== '') : plainType.endsWith('json') ? [text] : []
    for (const value of values) this.#validate(pointer, JSON.parse(value), what)
  }

  #validate(pointer: string, value: unknown, what: string): void {
    let validate = this.#validators.get(pointer)
    if (validate === undefined) {
      validate = this.#ajv.compile({ $ref: `openapi${pointer}` })
      this.#validators.set(pointer, validate)
    }
    ok(validate(value), `not as ${decodeURIComponent(pointer)} says: ${this.#ajv.errorsText(validate.errors)}. ${what}`)
  }
}

/** Parts of a path match anything but `/` and, where the path goes on with one, `:`. */
function patternOf(path: string): RegExp {
  const literal = path.replace(/[.*+?^$()|[\]\\]/g, '\\$&')
  return new RegExp(`^${literal.replace(/\{\w+\}:/g, '[^/:]*:').replace(/\{\w+\}/g, '[^/]*')}$`)
}

function escapePointer(part: string): string {
  return encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))
}

/** One for each process: the document is the same for every server. */
let known: Promise<AnswerChecks> | null = null

export function answerChecks(url: string): Promise<AnswerChecks> {
  known ??= fetch(`${url}/openapi.json`).then(async (answer) => new AnswerChecks((await answer.json()) as Document))
  return known
}
