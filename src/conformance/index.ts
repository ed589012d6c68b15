/** What `sluice/conformance` gives: the suite, the recorder's format, and the checkers. */
export { CHECKERS } from './checkers/all.ts'
export type { Check, Checker, Court, Verdict, Violation } from './checkers/checker.ts'
export {
  type Answer,
  type BeginEvent,
  type Call,
  type EndEvent,
  History,
  type HistoryEvent,
  idOf,
  type Mark,
  type MarkEvent,
} from './history.ts'
export { formatJudgements, Judge, type Judgement, type JudgeOptions, judgeLines } from './judge.ts'
export {
  ENGINES,
  type EngineUnderTest,
  embeddedEngine,
  httpEngine,
  memoryEngine,
  type StoreUnderTest,
} from './registry.ts'
export {
  type ConformanceOptions,
  type ConformanceResult,
  runConformance,
  runScenario,
  type ScenarioResult,
} from './run.ts'
export type { Noun, Scenario, Stage } from './scenario.ts'
export { SCENARIOS } from './scenarios/all.ts'
