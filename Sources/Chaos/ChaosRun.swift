import Foundation
import Rig

/// One fault after the other, each on a system of its own.
package struct ChaosRun: Sendable {
  package var faults: [Fault]
  package var rounds: Int
  package var seed: UInt64
  /// Takes each line as soon as it is known, and what is worth telling meanwhile.
  package var tell: @Sendable (String) -> Void = { _ in }
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(faults: [Fault], rounds: Int, seed: UInt64) {
    self.faults = faults
    self.rounds = rounds
    self.seed = seed
  }

  /// Never throws what a fault did: that is a line of the report.
  package func run() async throws -> [FaultReport] {
    var reports: [FaultReport] = []
    tell(FaultReport.header)
    for fault in faults {
      if let obstacle = Scene.obstacle(to: fault) {
        reports.append(FaultReport(fault: fault, problem: nil, skipped: obstacle))
      } else {
        progress("\(fault.rawValue): \(fault.story)")
        reports.append(try await run(fault))
      }
      tell(reports[reports.count - 1].line)
    }
    return reports
  }

  private func run(_ fault: Fault) async throws -> FaultReport {
    let logs = try LogDirectory("chaos")
    let began = ContinuousClock.now
    do {
      let outcome = try await Scene.run(fault, rounds: rounds, seed: seed, logs: logs.url)
      let report = FaultReport(fault: fault, rounds: rounds, outcome, took: .now - began)
      for line in report.particulars(outcome) { progress(line) }
      if report.holds { logs.remove() } else { progress("\(fault.rawValue): logs are in \(logs.url.path)") }
      return report
    } catch let obstacle as NotMeasured {
      logs.remove()
      return FaultReport(fault: fault, problem: nil, skipped: obstacle.reason)
    } catch {
      try Task.checkCancellation()
      progress("\(fault.rawValue): \(error); logs are in \(logs.url.path)")
      return FaultReport(fault: fault, problem: "\(error)", skipped: nil)
    }
  }
}
