/** Declaring: how queues, topics and groups come to be and how their settings change. */
import type { Declaration, DeclareOutcome } from '../engine/contract.ts'
import {
  CALLBACKS_QUEUE,
  DEFAULT_CALLBACKS,
  DEFAULT_GROUP,
  DEFAULT_QUEUE,
  DEFAULT_TOPIC,
  type GroupSettings,
  type QueueSettings,
  RESERVED_NAMES,
  withDefaults,
} from '../engine/options.ts'
import { formerWindows } from './appending.ts'
import type { Core } from './core.ts'
import { fenceKey, Group } from './group.ts'
import { findOffsetProblem } from './operating.ts'
import { drawTag, Topic } from './topic.ts'

/** What a declaration may add to. */
export interface Registry {
  readonly topics: Map<string, Topic>
  nextTopicId(): number
  nextGroupId(): number
  /** Tells the log of a new topic. */
  introduce(topic: Topic): void
}

export function declare(core: Core, registry: Registry, declaration: Declaration): DeclareOutcome {
  return declaration.kind === 'group'
    ? declareGroup(core, registry, declaration)
    : declareTopic(core, registry, declaration)
}

type TopicDeclaration = Extract<Declaration, { kind: 'queue' | 'topic' }>
type GroupDeclaration = Extract<Declaration, { kind: 'group' }>

function declareTopic(core: Core, registry: Registry, declaration: TopicDeclaration): DeclareOutcome {
  const { kind, name } = declaration
  const existing = registry.topics.get(name)
  if (existing === undefined) return createTopic(core, registry, declaration)
  const { row } = existing
  if (row.kind !== kind)
    return { status: 'conflict', message: `"${name}" is a ${row.kind} and cannot be declared as a ${kind}` }
  const settings = withDefaults(row.settings, declaration.settings)
  if (kind === 'queue' && (settings as QueueSettings).strict !== (row.settings as QueueSettings).strict) {
    return { status: 'conflict', message: `Whether queue "${name}" is strict was settled when it was declared first` }
  }
  if (JSON.stringify(settings) !== JSON.stringify(row.settings)) {
    const isWindowChanged = settings.idempotencyMs !== row.settings.idempotencyMs
    existing.row = { ...row, settings, ...(isWindowChanged ? { formerWindows: formerWindows(core, row) } : {}) }
    existing.saveRow(core)
    existing.isFull = false
    if (kind === 'queue') changeGroup(core, existing.jobs, settings as QueueSettings)
  }
  return { status: 'declared', created: false, tag: row.tag, settings }
}

function createTopic(
  core: Core,
  registry: Registry,
  { kind, name, settings: given }: TopicDeclaration,
): DeclareOutcome {
  const isCallbacks = kind === 'queue' && name === CALLBACKS_QUEUE
  if (name.startsWith(RESERVED_NAMES) && !isCallbacks)
    return {
      status: 'conflict',
      message: `Names that begin with '${RESERVED_NAMES}' are Sluice's own, as "${name}" does`,
    }
  const defaults = isCallbacks ? DEFAULT_CALLBACKS : DEFAULT_QUEUE
  const settings = kind === 'queue' ? withDefaults(defaults, given) : withDefaults(DEFAULT_TOPIC, given)
  const tag = drawTag(core.random)
  const topic = new Topic({ id: registry.nextTopicId(), name, kind, tag, settings }, core)
  // First the log, which may have no room for it; then everything that cannot fail.
  registry.introduce(topic)
  topic.saveRow(core)
  if (kind === 'queue') addGroup(core, registry, topic, '', settings as QueueSettings, 0)
  return { status: 'declared', created: true, tag, settings }
}

function declareGroup(core: Core, registry: Registry, declaration: GroupDeclaration): DeclareOutcome {
  const topic = registry.topics.get(declaration.topic)
  if (topic === undefined || topic.row.kind !== 'topic') return { status: 'not-found' }
  const existing = topic.groups.get(declaration.name)
  if (existing === undefined) {
    const offset = topic.resolve(declaration.from)
    const problem = findOffsetProblem(topic, offset)
    if (problem !== null) return problem
    const settings = withDefaults(DEFAULT_GROUP, declaration.settings)
    addGroup(core, registry, topic, declaration.name, settings, offset)
    return { status: 'declared', created: true, tag: topic.row.tag, settings }
  }
  const settings = withDefaults(existing.row.settings, declaration.settings)
  if (settings.strict !== existing.row.settings.strict) {
    return {
      status: 'conflict',
      message: `Whether group "${declaration.name}" is strict was settled when it was declared first`,
    }
  }
  changeGroup(core, existing, settings)
  return { status: 'declared', created: false, tag: topic.row.tag, settings }
}

function addGroup(
  core: Core,
  registry: Registry,
  topic: Topic,
  name: string,
  settings: GroupSettings,
  base: number,
): void {
  const row = {
    id: registry.nextGroupId(),
    topic: topic.row.id,
    name,
    settings: onlyGroup(settings),
    base,
    baseBytes: topic.bytesBefore(base),
    paused: false,
    lost: null,
  }
  const group = new Group(row, topic, core)
  group.fence = core.state.getJson<number>(fenceKey(topic, name)) ?? 0
  topic.groups.set(name, group)
  group.saveRow(core)
  group.countersChanged = true
  core.touched.add(group)
}

function changeGroup(core: Core, group: Group, settings: GroupSettings): void {
  const own = onlyGroup(settings)
  if (JSON.stringify(own) === JSON.stringify(group.row.settings)) return
  group.useSettings(own, core)
  group.saveRow(core)
  core.touched.add(group)
}

/** The part of a queue's settings that its group has. */
function onlyGroup(settings: GroupSettings): GroupSettings {
  const { attempts, backoff, onExhausted, deadLetters, strict, rate } = settings
  return { attempts, backoff, onExhausted, deadLetters, strict, rate }
}
