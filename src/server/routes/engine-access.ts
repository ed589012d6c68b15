/**
 * What a caller may ask of the engine's methods. They name their queues and topics in the body, so there is a row for
 * each method here, where the other routes have theirs beside the path. What a row gives is the argument as the engine gets
 * it: idempotency keys are the caller's own, and so are the tokens of its holds (lease-token.ts).
 */
import type { Command, Engine } from '../../index.ts'
import type { Caller, Scope } from '../access/scopes.ts'
import type { Directory } from '../directory.ts'
import { bindHolder } from '../lease-token.ts'
import type { EngineMethod } from './engine-arguments.ts'

type Argument<M extends EngineMethod> = Parameters<Engine[M]>[0]
type Bind<M extends EngineMethod> = (argument: Argument<M>, caller: Caller, directory: Directory) => unknown

const METHODS: { readonly [M in EngineMethod]: Bind<M> } = {
  async declare(declarations, caller, directory) {
    for (const declaration of declarations) {
      const { kind, name, settings } = declaration
      if (kind === 'group') caller.require('consume', declaration.topic)
      else if (Object.keys(settings).length > 0) caller.require('admin', name)
      // Its first use makes a name; who only looks finds what is there.
      else if (!caller.may('publish', name) && !caller.may('consume', name)) {
        caller.requireAny(name)
        await directory.find(kind, name)
      }
    }
    return declarations
  },
  append: (requests, caller) => bindAppends(requests, caller),
  read(request, caller) {
    caller.require('read', request.topic)
    return request
  },
  lease(request, caller) {
    caller.require('consume', request.topic)
    const { holder } = request
    return holder.kind === 'token'
      ? { ...request, holder: { kind: 'token', token: bindHolder(holder.token, caller.id) } }
      : request
  },
  extend: (requests, caller) => requests.map((request) => bindHold(request, caller)),
  settle: (requests, caller) =>
    requests.map((request) => {
      const { outputs } = request
      return {
        ...bindHold(request, caller),
        ...(outputs === undefined ? {} : { outputs: bindAppends(outputs, caller) }),
      }
    }),
  find: (ids) => ids,
  watch: (request) => request,
  command(command, caller) {
    const ask = COMMANDS[command.kind]
    if (ask === 'job') return command
    if (ask === 'everything') {
      caller.requireEverywhere('admin')
      return command
    }
    if (ask === 'schedule') {
      const asked = command as Extract<Command, { kind: 'schedule' | 'unschedule' | 'fire' }>
      caller.require('publish', asked.queue)
      if (asked.kind !== 'fire' || asked.append === null) return asked
      return { ...asked, append: bindAppends([asked.append], caller)[0] }
    }
    if (ask === 'hold') {
      const holding = command as Extract<Command, { kind: 'remember' | 'recall' }>
      return { ...holding, hold: bindHold(holding.hold, caller) }
    }
    caller.require(ask, (command as { topic: string }).topic)
    return command
  },
  stats: () => null,
}

/** `job`: hidden or not, see engine.ts. `hold`: whoever has the token. `schedule`: publish, on its
 * queue. `everything`: admin of every name. */
const COMMANDS: Readonly<Record<Command['kind'], Scope | 'job' | 'hold' | 'schedule' | 'everything'>> = {
  cancel: 'job',
  explain: 'job',
  pause: 'admin',
  resume: 'admin',
  redrive: 'admin',
  discard: 'admin',
  forget: 'admin',
  seek: 'admin',
  dead: 'read',
  // With the URLs of callbacks, which may have secrets in them.
  unsettled: 'admin',
  remember: 'hold',
  recall: 'hold',
  backup: 'everything',
  schedule: 'schedule',
  unschedule: 'schedule',
  fire: 'schedule',
  schedules: 'everything',
}

/** The argument as the engine gets it. Throws `FORBIDDEN`. */
export async function bindArgument(
  method: EngineMethod,
  argument: unknown,
  caller: Caller,
  directory: Directory,
): Promise<unknown> {
  return (METHODS[method] as Bind<EngineMethod>)(argument as never, caller, directory)
}

function bindAppends(requests: Argument<'append'>, caller: Caller): Argument<'append'> {
  return requests.map((request) => {
    caller.require('publish', request.topic)
    const { wishes } = request
    if (caller.id === '' || wishes === undefined) return request
    return { ...request, wishes: wishes.map((wish) => ({ ...wish, scope: caller.id })) }
  })
}

function bindHold<H extends { readonly topic: string; readonly token?: string | undefined }>(
  hold: H,
  caller: Caller,
): H {
  caller.require('consume', hold.topic)
  return hold.token === undefined ? hold : { ...hold, token: bindHolder(hold.token, caller.id) }
}
