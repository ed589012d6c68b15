/** The public surface of Sluice. */

export { type CallbackOptions, type CallbackSender, sendCallbacks } from './callbacks/sender.ts'
export type { DeclaredAs } from './declared.ts'
export type { Ability, EngineAbilities } from './engine/abilities.ts'
export type {
  AppendOutcome,
  AppendRequest,
  AppendWish,
  Command,
  CommandOutcome,
  DeadLetter,
  Declaration,
  DeclareOutcome,
  Engine,
  EngineStats,
  ExtendOutcome,
  ExtendRequest,
  FindOutcome,
  FullOutcome,
  GroupStats,
  GroupWork,
  Hold,
  JobStatus,
  JobView,
  LeaseOutcome,
  LeaseRequest,
  MessageOutcome,
  MessageSlice,
  OffsetProblem,
  ReadFrom,
  ReadOutcome,
  ReadRequest,
  Settlement,
  SettleOutcome,
  SettleRequest,
  StoredPlace,
  StoreReceipt,
  TopicStats,
  WaitReason,
  WatchRequest,
} from './engine/contract.ts'
export type {
  Backoff,
  GroupSettings,
  Limit,
  OnExhausted,
  OnSlowGroup,
  Partially,
  QueueSettings,
  Rate,
  Retention,
  TopicSettings,
} from './engine/options.ts'
export { DEFAULT_GROUP, DEFAULT_QUEUE, DEFAULT_TOPIC, withDefaults } from './engine/options.ts'
export { ERRORS, type ErrorCode, isSluiceError, SluiceError } from './errors.ts'
export { describeWaits } from './explaining.ts'
export type { FeedOptions, MessageOptions } from './feed.ts'
export type { DeadOptions, Discarded, DiscardOptions, Redriven, RedriveOptions } from './group-control.ts'
export type { HandlerContext, OutputOptions, Publish } from './handler-context.ts'
export { RetryLater, type RetryLaterOptions, Unrecoverable } from './handler-errors.ts'
export { AddedJob, type Explained, isTerminal, Job, type JobInfo, type Receipt, type ResultOptions } from './job.ts'
export { formatJobId, formatScheduledJobId, type JobId, type Place, parseJobId } from './job-id.ts'
export type { Pace } from './line.ts'
export { JobMessage, Message } from './message.ts'
export {
  BatchBuilder,
  BatchView,
  findBatchDamage,
  type Headers,
  MAX_BATCH_MESSAGES,
  MAX_HEADER_BYTES,
  MAX_KEY_BYTES,
  type MessageFields,
  PRIORITIES,
  PRIORITY_NORMAL,
  type Priority,
} from './message-batch.ts'
export { type Moved, type MoveOptions, moveQueue } from './moving.ts'
export { type Durability, type OpenOptions, open } from './open.ts'
export { findNearest } from './options-check.ts'
export { MAX_JSON_DEPTH, parseJsonPayload } from './payload.ts'
export {
  type AddItem,
  type AddOptions,
  type CallOptions,
  type DeadJob,
  type DeadPage,
  type JobHandler,
  Queue,
  type QueueOptions,
} from './queue.ts'
export { type Restored, restore } from './restore.ts'
export {
  checkStoredSchedule,
  SCHEDULE_RULES,
  Schedule,
  type ScheduleInfo,
  type ScheduleOptions,
  type Tick,
} from './schedule.ts'
export { type Schema, type SchemaIssue, validatePayload } from './schema.ts'
export type { OnSettled } from './settled-watches.ts'
export { type BackupInfo, createSluice, Sluice, type SluiceOptions, type SluiceParts } from './sluice.ts'
export type { StoredSchedules } from './stored-schedules.ts'
export {
  type DeadMessage,
  type DeadMessagePage,
  type MessageHandler,
  type PublishItem,
  type ReadOptions,
  type SubscribeOptions,
  Topic,
  type TopicOptions,
} from './topic.ts'
export { type Finding, type Verified, type VerifyOptions, verify } from './verify.ts'
export { Worker } from './worker.ts'
export type { CloseOptions, WorkOptions } from './worker-options.ts'
