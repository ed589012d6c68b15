/** The entry of the thread that checks and ends a backup, so that neither the caller's thread nor the broker's waits for it. */
import { statSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { finishBackup } from '../logs/sqlite/backup.ts'
import { asBackupError, type FinishAnswer, type FinishOrder } from './backup.ts'

const { unfinished, file } = workerData as FinishOrder
let answer: FinishAnswer
try {
  const { stamp: _stamp, ...facts } = finishBackup(unfinished, file, Date.now())
  answer = { taken: { file, fileBytes: statSync(file).size, ...facts } }
} catch (error) {
  const { code, message, details } = asBackupError(error)
  answer = { error: { code, message, details } }
}
parentPort?.postMessage(answer)
