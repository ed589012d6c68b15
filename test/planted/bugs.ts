// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are pieces of source.
/**
 * Bugs as somebody might write them: one change of one line of the source each, which the checkers must notice from the
 * history of simulated lives alone. `from` stands once in its file; a plant that no longer fits fails its test.
 */
export interface PlantedBug {
  readonly title: string
  /** From the root of the repository. */
  readonly file: string
  readonly from: string
  readonly to: string
  /** Checkers that may notice it first; see src/conformance/checkers. */
  readonly caughtBy: readonly string[]
}

const DELAYING = 'src/ledger/delaying.ts'
const APPENDING = 'src/ledger/appending.ts'
const SETTLING = 'src/ledger/settling.ts'
const HAND_OUT = 'src/ledger/hand-out.ts'
const JOBS = 'src/ledger/jobs.ts'
const TOPIC = 'src/ledger/topic.ts'
const OPERATING = 'src/ledger/operating.ts'
const GROUP = 'src/ledger/group.ts'
const LEASE = 'src/ledger/lease.ts'
const LEDGER = 'src/ledger/ledger.ts'
const LOADING = 'src/ledger/loading.ts'

export const PLANTED: readonly PlantedBug[] = [
  {
    title: 'an acknowledgement before the sync',
    file: 'src/broker/broker.ts',
    from: 'const outcome = this.#log.commit(this.#ownership, commit)',
    to: 'this.#emit(step.answers, 0); const outcome = this.#log.commit(this.#ownership, commit)',
    caughtBy: ['no-acknowledged-loss', 'offset-agreement', 'fencing', 'settle-finality', 'job-phase'],
  },
  {
    title: 'a commit that keeps the messages and forgets what changed',
    file: LEDGER,
    from: 'const commit: Commit = { outputs: core.outputs, changes: core.state.take() }',
    to: 'const changes = core.state.take(); const commit: Commit = { outputs: core.outputs, changes: this.#steps % 7 === 0 ? new Map() : changes }',
    caughtBy: ['fencing', 'settle-finality', 'job-phase', 'no-acknowledged-loss'],
  },
  {
    title: 'a settle that looks at no fence',
    file: SETTLING,
    from: 'const lease = group.leases.get(hold.fence)',
    to: 'const lease = [...group.leases.values()].find((one) => (hold as { offsets?: readonly number[] }).offsets?.some((offset) => one.holds(offset)))',
    caughtBy: ['exclusive', 'settle-finality'],
  },
  {
    title: 'a fence that is not checked on progress and extension',
    file: SETTLING,
    from: "const lost = request.offsets.filter((offset) => lease === undefined || !lease.holds(offset))\n  if (lease === undefined || lost.length === request.offsets.length) return { status: 'extended', expiresAtMs: 0, lost }",
    to: "const lost: number[] = []\n  if (lease === undefined) return { status: 'extended', expiresAtMs: core.nowMs + request.leaseMs, lost }",
    caughtBy: ['exclusive'],
  },
  {
    title: 'fences that begin again with a new process',
    file: LOADING,
    from: 'group.fence = fence as number',
    to: 'group.fence = (fence as number) - 1',
    caughtBy: ['fencing'],
  },
  {
    title: 'a retry that lets its key overtake',
    file: SETTLING,
    from: '  closeHold(core, group, lease, index)\n  core.touched.add(group)\n  const offset = lease.offsets[index] as number\n  const attempts',
    to: '  closeHold(core, group, lease, index)\n  core.touched.add(group)\n  const offset = lease.offsets[index] as number\n  const overtaking = group.lanes.leave(lease.lanes[index] as number)\n  if (overtaking >= 0) group.makeReady(overtaking)\n  const attempts',
    caughtBy: ['key-order'],
  },
  {
    title: 'two of a key at once',
    file: 'src/policy/lanes.ts',
    from: 'if (lane === 0) return true',
    to: 'if (lane % 2 === 0) return true',
    caughtBy: ['key-order', 'exclusive'],
  },
  {
    title: 'a lane that is forgotten when its message is loaded again',
    file: LOADING,
    from: 'if (!group.troubles.has(offset)) group.lanes.enter(lease.lanes[index] as number, offset, core.nowMs)',
    to: '',
    caughtBy: ['key-order', 'exclusive'],
  },
  {
    title: 'a strict queue whose lane is each its own',
    file: GROUP,
    from: 'return this.row.settings.strict ? STRICT_LANE : lane',
    to: 'return lane',
    caughtBy: ['key-order', 'exclusive'],
  },
  {
    title: 'a retry before its time',
    file: GROUP,
    from: 'if (trouble.dueAtMs <= core.nowMs) this.makeReady(trouble.offset)',
    to: 'if (trouble.dueAtMs <= core.nowMs + 1_000) this.makeReady(trouble.offset)',
    caughtBy: ['no-early-delivery'],
  },
  {
    title: 'a delayed job before it is due',
    file: DELAYING,
    from: 'prefix + hex(core.nowMs + 1)',
    to: 'prefix + hex(core.nowMs + 500)',
    caughtBy: ['no-early-delivery'],
  },
  {
    title: 'a deadline that nobody looks at',
    file: HAND_OUT,
    from: 'if (deadlineMs !== 0 && deadlineMs <= core.nowMs && !group.troubles.has(offset)) {',
    to: 'if (deadlineMs !== 0 && deadlineMs <= core.nowMs - 60_000 && !group.troubles.has(offset)) {',
    caughtBy: ['no-early-delivery'],
  },
  {
    title: 'an attempt that is counted only when it failed',
    file: HAND_OUT,
    from: 'picks.attempts.push((trouble?.attempts ?? 0) + 1)',
    to: 'picks.attempts.push(Math.max(trouble?.attempts ?? 0, 1))',
    caughtBy: ['bounded-duplicates', 'job-phase'],
  },
  {
    title: 'attempts without an end',
    file: SETTLING,
    from: 'if (attempts - forgiven >= group.maxAttempts) {',
    to: 'if (attempts - forgiven > group.maxAttempts) {',
    caughtBy: ['bounded-duplicates'],
  },
  {
    title: 'a lease that ends when it would have without its extension',
    file: SETTLING,
    from: 'if (lease.expiresAtMs > core.nowMs) {',
    to: 'if (lease.expiresAtMs > core.nowMs + 10_000) {',
    caughtBy: ['bounded-duplicates', 'liveness'],
  },
  {
    title: 'an extension that is acknowledged and not kept',
    file: SETTLING,
    from: '    lease.expiresAtMs = core.nowMs + request.leaseMs\n    core.state.putJson',
    to: "    return { status: 'extended', expiresAtMs: core.nowMs + request.leaseMs, lost }\n    core.state.putJson",
    caughtBy: ['bounded-duplicates'],
  },
  {
    title: 'leases that never end',
    file: SETTLING,
    from: '  if (lease === undefined || lease.token === null) return\n  if (lease.expiresAtMs',
    to: '  if (lease !== undefined) return\n  if ((lease as never as Lease).expiresAtMs',
    caughtBy: ['liveness'],
  },
  {
    title: 'a message that can be settled twice',
    file: LEASE,
    from: 'return index >= 0 && this.#closed[index] === 0 ? index : -1',
    to: 'return index',
    caughtBy: ['settle-finality', 'exclusive'],
  },
  {
    title: 'a 503 after storing',
    file: APPENDING,
    from: "    return { status: 'stored', offset: topic.store(core, batch), receipt }",
    to: "    const offset = topic.store(core, batch)\n    if (offset % 50 === 49) return { status: 'mixed', outcomes: Array.from({ length: view.count }, () => topic.refuse(core, { messages: 1, bytes: 1 })), receipt }\n    return { status: 'stored', offset, receipt }",
    caughtBy: ['no-phantom', 'conservation'],
  },
  {
    title: 'a receipt with the wrong offset',
    file: APPENDING,
    from: "      outcomes.push({ status: 'stored', offset })",
    to: "      outcomes.push({ status: 'stored', offset: topic.head })",
    caughtBy: ['offset-agreement'],
  },
  {
    title: 'a message of a batch that is dropped though acknowledged',
    file: APPENDING,
    from: '      else runs.push({ batch: view, from: i, to: i + 1 })',
    to: '      else if (i < 5) runs.push({ batch: view, from: i, to: i + 1 })',
    caughtBy: ['offset-agreement', 'no-acknowledged-loss'],
  },
  {
    title: 'a dedupe window that is lost on restart',
    file: APPENDING,
    from: 'if (row === undefined) continue\n      return row.payload',
    to: 'if (row === undefined || row.atMs < ((core as unknown as { began?: number }).began ??= core.nowMs)) continue\n      return row.payload',
    caughtBy: ['idempotency'],
  },
  {
    title: 'a dedupe key that stands for any payload',
    file: APPENDING,
    from: 'return row.payload === payloadHash(view, index)',
    to: 'return row.payload.length > 0',
    caughtBy: ['idempotency'],
  },
  {
    title: 'a limit that is looked at once for a whole batch',
    file: APPENDING,
    from: '!topic.fits(offset - topic.head + 1, bytes + size, isReserve)) {',
    to: '!topic.fits(1, size, isReserve)) {',
    caughtBy: ['bounded-depth'],
  },
  {
    title: 'a limit that does not count what is delayed',
    file: TOPIC,
    from: 'messages: messages + this.scheduled + this.promised,',
    to: 'messages: messages + this.promised,',
    caughtBy: ['bounded-depth'],
  },
  {
    title: 'a floor past a gap',
    file: 'src/ledger/settled.ts',
    from: '    this.#floor = floor\n  }\n\n  /** What changed',
    to: '    this.#floor = this.#chunks.size > 0 ? floor + 1 : floor\n  }\n\n  /** What changed',
    caughtBy: ['no-acknowledged-loss', 'conservation', 'liveness'],
  },
  {
    title: 'outputs of a settle that came too late',
    file: SETTLING,
    from: "if (lease === undefined || lost.length > 0) return { status: 'settled', lost: [...offsets], outputs: [] }",
    to: "if (lease === undefined || lost.length > 0) return { status: 'settled', lost: [...offsets], outputs: outputs.store() }",
    caughtBy: ['no-phantom'],
  },
  {
    title: 'outputs that are acknowledged and not stored',
    file: LEDGER,
    from: ': append(this.#core, topic, output, true)',
    to: ": { status: 'stored', offset: topic.head, receipt: { partition: 0, timestampMs: 0, durability: 'memory', copies: 1 } }",
    caughtBy: ['offset-agreement', 'no-acknowledged-loss', 'rising-reads'],
  },
  {
    title: 'outputs that are stored though their message goes on',
    file: SETTLING,
    from: '  for (const offset of offsets) settleOne(core, group, lease, offset, outcome)\n  return',
    to: '  if (core.nowMs % 2 === 0) for (const offset of offsets) settleOne(core, group, lease, offset, outcome)\n  return',
    caughtBy: ['atomic-outputs'],
  },
  {
    title: 'a key that is lost on redrive',
    file: OPERATING,
    from: '    key: view.key(0),\n',
    to: '',
    caughtBy: ['integrity'],
  },
  {
    title: 'a wait that ends early',
    file: LEDGER,
    from: "          kind: 'lease',\n          id,\n          untilMs: core.nowMs + request.body.waitMs,",
    to: "          kind: 'lease',\n          id,\n          untilMs: core.nowMs + request.body.waitMs / 2,",
    caughtBy: ['waits-end'],
  },
  {
    title: 'a cancel that leaves the message in its lane',
    file: JOBS,
    from: '  if (lease === undefined) {\n    settleWaiting(core, group, offset, row)\n    return\n  }',
    to: '  if (lease === undefined) return',
    caughtBy: ['settle-finality', 'job-phase'],
  },
  {
    title: 'a cancelled job whose handler may still settle it',
    file: JOBS,
    from: '  revoke(core, group, lease, index)\n  settleAs',
    to: '  settleAs',
    caughtBy: ['job-phase', 'conservation', 'settle-finality', 'assertion', 'liveness'],
  },
  {
    title: 'a result that is not the one that was settled',
    file: SETTLING,
    from: 'outcome.result === undefined ? row : { ...row, result: outcome.result })',
    to: "outcome.result === undefined ? row : { ...row, result: '0' })",
    caughtBy: ['job-phase'],
  },
  {
    title: 'a record of `once` that is not stored',
    file: 'src/ledger/commands.ts',
    from: 'core.state.put(',
    to: 'void (',
    caughtBy: ['once-kept'],
  },
  {
    title: 'a reader who skips the first of a batch',
    file: 'src/ledger/reading.ts',
    from: 'const first = offset - batch.baseOffset',
    to: 'const first = Math.min(batch.count - 1, offset - batch.baseOffset + (messages.length > 0 ? 1 : 0))',
    caughtBy: ['rising-reads'],
  },
  {
    title: 'a reader who is shown what is not yet there',
    file: 'src/ledger/reading.ts',
    from: 'next: offset, earliest: topic.earliest, head: topic.head }',
    to: 'next: offset + 1, earliest: topic.earliest, head: topic.head }',
    caughtBy: ['rising-reads'],
  },
  {
    title: 'a group that is let go of and forgets what it had settled',
    file: OPERATING,
    from: '    dropBelow(core, group, to)\n',
    to: '    seekGroup(core, group, to)\n',
    caughtBy: ['settle-finality'],
  },
  {
    title: 'keys of idempotency that go back with the clock',
    file: LOADING,
    from: '  topic.keysSinceMs = newestBucketMs(core, topic)\n',
    to: '',
    caughtBy: ['idempotency'],
  },
  {
    title: 'a suspect that is not put back',
    file: SETTLING,
    from: '  for (const index of lease.open()) {\n    const attempt = lease.attempts[index] as number\n    failAttempt(core, group, lease, index, `The process',
    to: '  for (const index of lease.open().slice(1)) {\n    const attempt = lease.attempts[index] as number\n    failAttempt(core, group, lease, index, `The process',
    caughtBy: ['liveness'],
  },
]
