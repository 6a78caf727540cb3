import Dispatcher
import Foundation
import Fuzzing
import Postgres
import Testing

/// A short run of what `scripts/fuzz` does by the million, from another seed every time, or from MARTLET_SEED.
/// One target at a time: the note of what is running, for a trap, is the process's.
@Suite(.serialized) struct FuzzTests {
  @Test(arguments: FuzzTarget.all.map(\.name))
  func noInputTrapsOrIsMisread(target name: String) throws {
    let target = try #require(FuzzTarget.all.first { $0.name == name })
    let seed = ProcessInfo.processInfo.environment["MARTLET_SEED"].flatMap(UInt64.init) ?? .random(in: 1...999_999_999)
    print("\(name): MARTLET_SEED=\(seed)")
    let report = try FuzzRun(target, seed: seed, count: 3000).run()
    // What the generator makes must get past the door.
    #expect(report.accepted > 0.01)
  }

  /// Fuzzing found that the first of these trapped, and with it a dispatcher.
  @Test(
    arguments: [
      (.min, "-290308-12-22T19:59:05.224192Z"), (.max, "294247-01-10T04:00:54.775807Z"),
      (0, "2000-01-01T00:00:00.000000Z"),
    ] as [(Int64, String)]
  )
  func timesAtTheBordersAreWritten(microseconds: Int64, text: String) {
    #expect(Timestamp(microsecondsSince2000: microseconds).rfc3339 == text)
  }

  /// A failure can be had again: the same seed makes the same input.
  @Test func seedDecidesTheInput() {
    for seed in [1, 2, 999] as [UInt64] {
      var (one, other) = (FuzzRandom(seed: seed), FuzzRandom(seed: seed))
      #expect((0..<50).allSatisfy { _ in one.next() == other.next() })
    }
  }
}
