import Foundation
import Synchronization
import Testing

/// Whole systems under a scheduler that a seed drives; see docs/simulation.md. One after the other: each takes all processors.
@Suite(.serialized) struct SimulationTests {
  /// `MARTLET_SEEDS` says how many (10,000), `MARTLET_SEED` where they begin, `MARTLET_HOURS` instead for how long, and
  /// `MARTLET_FAILURES` after how many violations it ends (5): each names its seed, and MARTLET_SEED=… MARTLET_SEEDS=1
  /// replays it.
  @Test func everySeedKeepsTheInvariants() async throws {
    let environment = ProcessInfo.processInfo.environment
    let first = environment["MARTLET_SEED"].flatMap(UInt64.init) ?? 1
    let count = environment["MARTLET_SEEDS"].flatMap(UInt64.init) ?? 10_000
    let mutation = environment["MARTLET_MUTATION"].flatMap(Mutation.init)
    let hours = environment["MARTLET_HOURS"].flatMap(Double.init)
    let report = await simulate(
      hours == nil ? first..<first + count : first..<UInt64.max,
      mutation: mutation,
      failuresWanted: environment["MARTLET_FAILURES"].flatMap(Int.init) ?? 5,
      end: hours.map { .now + .seconds(3600 * $0) }
    )
    print(report.summary)
    #expect(
      report.failures.isEmpty,
      "\(report.failures.map { "seed \($0.seed): \($0.violation)" }.joined(separator: "\n"))"
    )
    if let failure = report.failures.first {
      let lines = World(seed: failure.seed, mutation: mutation, trace: true).run().lines
      print(lines.suffix(200).joined(separator: "\n"))
    }
  }

  @Test func aSeedReplaysExactly() async {
    let first = await simulate(1..<20, keepsDigests: true)
    let second = await simulate(1..<20, keepsDigests: true)
    #expect(first.digests == second.digests && first.digests.count == 19)
  }
}

struct SimulationReport: Sendable {
  var seeds = 0
  var sends = 0
  var commits = 0
  var duplicates = 0
  var steps = 0
  var failures: [(seed: UInt64, violation: String)] = []
  var digests: [UInt64: UInt64] = [:]
  var seconds = 0.0
  /// Of all processors together.
  var processorSeconds = 0.0

  var summary: String {
    """
    \(seeds) seeds in \(Int(seconds)) s, \(Int(processorSeconds * 1e6) / max(1, seeds)) µs of processor time each: \
    \(steps) steps, \(commits) commits, \
    \(sends) requests, \(duplicates) of them duplicates that a fault explains, \(failures.count) violations
    """
  }
}

/// Runs the seeds on as many threads as there are processors. Stops after `failuresWanted` violations.
func simulate(
  _ seeds: Range<UInt64>,
  mutation: Mutation? = nil,
  keepsDigests: Bool = false,
  failuresWanted: Int = 5,
  end: ContinuousClock.Instant? = nil
) async -> SimulationReport {
  let tally = Tally(seeds, failuresWanted, end)
  let (began, processorBegan) = (ContinuousClock.now, clock())
  await withTaskGroup(of: Void.self) { group in
    for _ in 0..<max(1, ProcessInfo.processInfo.activeProcessorCount) {
      group.addTask {
        // A thread of its own: a run takes its time, and its fibers want to stay where they are.
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
          let thread = Thread { @Sendable in
            while let seed = tally.next() {
              let world = World(seed: seed, mutation: mutation)
              tally.note(world, world.run(), keepsDigests)
            }
            continuation.resume()
          }
          thread.stackSize = 8 << 20
          thread.start()
        }
      }
    }
  }
  var report = tally.report
  report.seconds = (ContinuousClock.now - began) / .seconds(1)
  report.processorSeconds = Double(clock() - processorBegan) / Double(CLOCKS_PER_SEC)
  return report
}

private final class Tally: Sendable {
  private let state: Mutex<(next: UInt64, report: SimulationReport)>
  private let end: UInt64
  private let failuresWanted: Int
  private let deadline: ContinuousClock.Instant?

  init(_ seeds: Range<UInt64>, _ failuresWanted: Int, _ deadline: ContinuousClock.Instant?) {
    self.deadline = deadline
    state = Mutex((seeds.lowerBound, SimulationReport()))
    end = seeds.upperBound
    self.failuresWanted = failuresWanted
  }

  func next() -> UInt64? {
    if let deadline, ContinuousClock.now > deadline { return nil }
    return state.withLock { state in
      guard state.next < end, state.report.failures.count < failuresWanted else { return nil }
      state.next += 1
      return state.next - 1
    }
  }

  func note(_ world: World, _ checker: Checker, _ keepsDigests: Bool) {
    let (seed, violation, digest) = (world.seed, checker.violation, checker.digest)
    let (sends, commits, duplicates, steps) = (
      checker.sends, checker.commits, checker.duplicates, world.scheduler.steps
    )
    state.withLock { state in
      state.report.seeds += 1
      state.report.sends += sends
      state.report.commits += commits
      state.report.duplicates += duplicates
      state.report.steps += steps
      if let violation { state.report.failures.append((seed, violation)) }
      if keepsDigests { state.report.digests[seed] = digest }
    }
  }

  var report: SimulationReport {
    var report = state.withLock { $0.report }
    report.failures.sort { $0.seed < $1.seed }
    return report
  }
}
