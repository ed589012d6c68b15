/**
 * The HTTP server: the routes over the public API, behind one guard, one count of what is under way, one kind of error.
 *
 *     created -> listening -> closing -> closed
 *
 * `close` takes nothing new, ends every wait (long polls answer what they have, streams end), gives requests at work
 * `drainMs`, then cuts their connections. It does not close the `Sluice` it serves: whoever opened that closes it.
 */
import type { ServerResponse } from 'node:http'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest, LogController } from 'fastify'
import { SluiceError } from '../errors.ts'
import type { Sluice } from '../index.ts'
import { Gate } from './access/gate.ts'
import { KeyRing } from './access/key-ring.ts'
import { checkAccess, demandAccess } from './access/route-access.ts'
import { Sessions } from './access/sessions.ts'
import { collectRoutes } from './api/document.ts'
import { checkQuery } from './api/operation.ts'
import { Appender } from './appender.ts'
import { announcedBytes, checkBodyHeaders } from './bodies.ts'
import { answerBrokenRequest, boundConnections, follow, forget } from './connections.ts'
import { ANSWERS_LATER, type Context, MAX_PATH_CHARS } from './context.ts'
import { Directory } from './directory.ts'
import { Tails } from './follower.ts'
import { guardDoor, watchLoop } from './front-door.ts'
import { createGuard } from './guard.ts'
import { Load, type Visit } from './load.ts'
import { escapeControls } from './log-text.ts'
import { createMetrics, type Metrics } from './metrics.ts'
import { formatProblem, PROBLEM_TYPE, problemOf, retryAfterSeconds, toSluiceError } from './problem.ts'
import { checkRequest } from './request-check.ts'
import { backupRoutes } from './routes/backup.ts'
import { declareRoutes } from './routes/declare.ts'
import { engineRoutes } from './routes/engine.ts'
import { healthRoutes } from './routes/health.ts'
import { jobRoutes } from './routes/jobs.ts'
import { leaseRoutes } from './routes/leases.ts'
import { messageRoutes } from './routes/messages.ts'
import { operateRoutes } from './routes/operate.ts'
import { scheduleRoutes } from './routes/schedules.ts'
import { sessionRoutes } from './routes/session.ts'
import { completeServerOptions, type ServerOptions, type ServerSettings } from './settings.ts'
import { readTls, renewTls } from './tls.ts'
import { classOf } from './work-class.ts'

export interface Server extends AsyncDisposable {
  /** Where it listens, such as `http://127.0.0.1:8787`; '' before `listen`. */
  readonly url: string
  /** Starts; the answer is the URL. */
  listen(): Promise<string>
  /** Stops, see above. May be called more than once. */
  close(): Promise<void>
}

/** Time for headers to arrive, and between looks for connections that take too long. */
const HEADERS_TIMEOUT_MS = 10_000
const CHECK_INTERVAL_MS = 1_000
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'])
/** Between looks for connections that became idle as the server closes. */
const SWEEP_MS = 20
const KEEP_ALIVE_MS = 72_000
/** Smaller answers are bounded by their number. */
const LARGE_ANSWER_BYTES = 16_384

/** Makes a server of `sluice`. It has no socket until `listen`. */
export function createServer(sluice: Sluice, options: ServerOptions = {}): Server {
  const settings = completeServerOptions(options)
  const { engine } = sluice
  const now = () => Date.now()
  // The log is there once the app is.
  const warn = (details: object, message: string) => app.log.warn(details, message)
  const keys =
    settings.keys === null
      ? null
      : new KeyRing({
          path: settings.keys,
          now,
          onDamage: (error) => warn({ err: error }, 'the key file cannot be read: no key is good'),
        })
  const sessions = new Sessions(now)
  const context: Context = {
    sluice,
    engine,
    settings,
    directory: new Directory(sluice, settings.maxQueues),
    appender: new Appender(engine),
    tails: new Tails(engine, settings.heartbeatMs),
    load: new Load(settings),
    keys,
    sessions,
    gate: new Gate({ keys, sessions, report: (count) => warn({ count }, 'calls without a good key were refused') }),
    schedules: null,
    now: () => sluice.engineNow(),
  }
  const app = createApp(context)
  guardDoor(app.server, context.load)
  const connections = boundConnections(app.server, settings.maxConnections, settings.heartbeatMs)
  const renewal = settings.tls === null ? null : renewTls(app.server, settings.tls)
  let stopWatching = (): void => {}
  let url = ''
  let closed: Promise<void> | null = null

  async function close(): Promise<void> {
    context.load.close()
    const schedules = context.schedules?.close()
    context.gate.stop()
    if (renewal !== null) clearInterval(renewal)
    const cut = setTimeout(connections.cutAll, settings.drainMs)
    // Fastify closes those that are idle now; a stream that ends now leaves its connection idle in a moment.
    const sweep = setInterval(connections.endUnused, SWEEP_MS)
    await app.close()
    clearTimeout(cut)
    clearInterval(sweep)
    stopWatching()
    await schedules
  }

  return {
    get url() {
      return url
    },
    async listen() {
      try {
        url = await app.listen({ host: settings.host, port: settings.port })
      } catch (error) {
        throw listenError(error, settings)
      }
      if (settings.maxLoopDelayMs > 0) stopWatching = watchLoop(context.load)
      context.gate.start()
      context.schedules = sluice.runSchedules()
      return url
    },
    close: () => (closed ??= close()),
    [Symbol.asyncDispose]: () => (closed ??= close()),
  }
}

function createApp(context: Context): FastifyInstance {
  const { settings, load, gate } = context
  const limits = {
    headersTimeout: Math.min(HEADERS_TIMEOUT_MS, settings.requestTimeoutMs),
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    // Node's own refusal has no body; see `checkHost`.
    requireHostHeader: false,
    handshakeTimeout: Math.min(HEADERS_TIMEOUT_MS, settings.requestTimeoutMs),
  }
  const app = Fastify({
    logger: settings.log === null ? false : { level: 'warn', stream: safeLog(settings.log) },
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: settings.maxBatchBytes,
    requestTimeout: settings.requestTimeoutMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: MAX_PATH_CHARS },
    // With TLS Fastify's types make another class of the app; its routes are the same.
    ...(settings.tls === null ? { http: limits } : ({ https: { ...limits, ...readTls(settings.tls) } } as object)),
    frameworkErrors: (error, _request, reply) => sendProblem(reply, error),
    clientErrorHandler: answerBrokenRequest,
  })
  app.removeAllContentTypeParsers()
  app.decorateRequest('visit', null as never)
  app.decorateRequest('caller', null as never)
  app.decorateRequest('operation', undefined)
  const guard = createGuard(settings.host, settings.allowedHosts)
  let isFailureTold = false

  const metrics = createMetrics(
    context,
    () =>
      new Promise((resolve, reject) =>
        app.server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
      ),
  )

  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-content-type-options', 'nosniff').header('referrer-policy', 'no-referrer')
    try {
      // Once: Fastify makes it anew each time that it is asked for.
      const { config, url } = request.routeOptions
      request.operation = config.operation
      const { method, raw } = request
      const visit = attend(reply.raw, { load, gate, metrics }, method, url)
      request.visit = visit
      checkRequest(raw)
      if (url === undefined) throw noRoute(request, reply)
      const { headers } = raw
      checkHost(request)
      guard({ method, headers, localAddress: raw.socket.localAddress })
      const { access = 'open' } = config
      if (access !== 'open') {
        const { caller, session } = gate.identify(request)
        request.caller = caller
        gate.follow(visit, caller, session)
        checkAccess(access, caller, request)
      }
      checkQuery(request)
      checkBodyHeaders(request)
      visit.takeBody(announcedBytes(headers, settings))
      done()
    } catch (error) {
      done(error as Error)
    }
  })
  app.addHook('onSend', (request, reply, payload, done) => {
    if (load.isClosed) reply.header('connection', 'close')
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? payload.length : 0
    if (bytes >= LARGE_ANSWER_BYTES) request.visit.holdAnswer(bytes, () => request.raw.socket.destroy())
    done()
  })
  app.setErrorHandler((error, request, reply) => {
    const known = toSluiceError(error)
    // Every call fails alike once the engine has stopped; why, with its stack, is told once.
    const isNews = known === null || (known.code === 'ENGINE_FAILED' && !isFailureTold)
    if (known?.code === 'ENGINE_FAILED') isFailureTold = true
    if (isNews) {
      const { method, routeOptions } = request
      request.log.error(
        { err: error, stack: known?.details.stack, method, route: routeOptions.url },
        'a request failed',
      )
    }
    metrics.refuse(problemOf(error).code)
    return sendProblem(reply, error)
  })

  holdBodies(app)
  demandAccess(app)
  const methodsByUrl = collectMethods(app)
  const routes = collectRoutes(app)
  for (const addRoutes of [
    declareRoutes,
    jobRoutes,
    leaseRoutes,
    messageRoutes,
    operateRoutes,
    backupRoutes,
    engineRoutes,
    sessionRoutes,
    scheduleRoutes,
  ]) {
    app.register(async (scope) => addRoutes(scope, context))
  }
  app.register(async (scope) => healthRoutes(scope, context, metrics, routes))
  app.register(async (scope) => refuseOtherMethods(scope, methodsByUrl))
  return app
}

/**
 * Lets a request in, and sees it off when the connection is done with it. The function that hears of that lives as long
 * as an event stream, so it knows nothing of the request but what it needs.
 */
function attend(
  response: ServerResponse,
  { load, gate, metrics }: Pick<Context, 'load' | 'gate'> & { readonly metrics: Metrics },
  method: string,
  route = 'none',
): Visit {
  const startedAtMs = performance.now()
  // One that is turned away here is counted as the others are.
  let visit: Visit | null = null
  // It comes once.
  response.on('close', () => {
    if (response.headersSent) metrics.count(method, route, response.statusCode, performance.now() - startedAtMs)
    if (visit === null) return
    forget(response)
    visit.leave()
    gate.leave(visit)
  })
  visit = load.enter(classOf(method, response.req.url ?? ''))
  follow(response)
  return visit
}

/** Names, headers and errors of others may stand in a line; it stays one line of one program's text. */
function safeLog(log: NonNullable<ServerSettings['log']>): { write(line: string): void } {
  return { write: (line) => log.write(`${escapeControls(line.trimEnd())}\n`) }
}

function sendProblem(reply: FastifyReply, error: unknown): FastifyReply {
  const problem = problemOf(error)
  const seconds = retryAfterSeconds(problem)
  if (seconds !== null) reply.header('retry-after', seconds)
  if (problem.code === 'UNAUTHENTICATED') reply.header('www-authenticate', 'Bearer realm="sluice"')
  return reply.code(problem.status).type(PROBLEM_TYPE).send(formatProblem(problem))
}

/** A method that no route takes is one that the path does not take, whatever it is. */
function noRoute({ method, url }: FastifyRequest, reply: FastifyReply): SluiceError {
  if (METHODS.has(method))
    return new SluiceError('NOT_FOUND', `There is no route ${method} ${url.slice(0, 200)}. docs/http.md lists them.`)
  const allow = [...METHODS].join(', ')
  reply.header('allow', allow)
  return new SluiceError('METHOD_NOT_ALLOWED', `${method} is not a method of any path here; they take ${allow}.`, {
    allow: [...METHODS],
  })
}

function checkHost({ headers, raw }: FastifyRequest): void {
  if (headers.host === undefined && raw.httpVersion === '1.1')
    throw new SluiceError('BAD_REQUEST', 'The request has no Host header, which HTTP/1.1 demands.')
}

/** Tells each visit how long its handler runs, which may be longer than its client stays. */
function holdBodies(app: FastifyInstance): void {
  app.addHook('onRoute', (route) => {
    const { handler } = route
    route.handler = function (request, reply) {
      const { visit } = request
      visit.startHandler()
      let answer: unknown
      try {
        answer = handler.call(this, request, reply)
      } catch (error) {
        visit.endHandler()
        throw error
      }
      if (answer instanceof Promise) return answer.finally(() => visit.endHandler())
      // It answers by itself, and ends its visit then.
      if (answer === ANSWERS_LATER) return
      visit.endHandler()
      return answer
    }
  })
}

/** Which methods each path takes, as routes are added. */
function collectMethods(app: FastifyInstance): Map<string, string[]> {
  const methodsByUrl = new Map<string, string[]>()
  app.addHook('onRoute', ({ url, method }) => {
    methodsByUrl.set(url, (methodsByUrl.get(url) ?? []).concat(method))
  })
  return methodsByUrl
}

/** A path that exists answers the methods it does not take with 405, before a body is read. */
function refuseOtherMethods(app: FastifyInstance, methodsByUrl: Map<string, string[]>): void {
  for (const [url, methods] of [...methodsByUrl]) {
    const allow = methods.join(', ')
    app.route({
      url,
      method: app.supportedMethods.filter((method) => !methods.includes(method)),
      config: { access: 'open', isRefusal: true },
      onRequest: (request, reply, done) => {
        reply.header('allow', allow)
        done(
          new SluiceError('METHOD_NOT_ALLOWED', `${request.method} is not a method of this path; it takes ${allow}.`, {
            allow: methods,
          }),
        )
      },
      handler: () => {},
    })
  }
}

function listenError(error: unknown, { host, port }: ServerSettings): SluiceError {
  const { code } = error as NodeJS.ErrnoException
  const why =
    code === 'EADDRINUSE'
      ? 'another program listens there. Stop it, or choose another port'
      : code === 'EACCES'
        ? 'this user may not listen there. Choose a port from 1,024 on'
        : `the system says ${code ?? String(error)}`
  return new SluiceError('INVALID_OPTION', `Cannot listen on ${host}, port ${port}: ${why}.`, { option: 'port' }, error)
}
