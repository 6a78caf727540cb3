import Testing

@testable import Chaos

@Suite struct ExplanationTests {
  private let origin = ContinuousClock.now

  @Test func theLatestFaultThatCaughtItExplainsARepetitionOnce() {
    let early = Caught(cause: .fault(.kill), began: origin, codes: [8, 16])
    let late = Caught(cause: .fault(.crash), began: origin + .seconds(10), codes: [16, 24])
    let repetitions = [(16, 11), (16, 12), (16, 13), (24, 5)].map { (code: UInt64($0.0), at: origin + .seconds($0.1)) }
    let explanation = Explanation(repetitions, [early, late])
    #expect(explanation.observed == [1, 1])
    // The third time, and before the fault.
    #expect(explanation.unexplained == [Pair(code: 16), Pair(code: 24)])
  }

  @Test func noInjectionExplainsMoreThanItCaught() {
    let caught = [
      Caught(cause: .fault(.kill), began: origin, codes: [8, 16]),
      Caught(cause: .fault(.kill), began: origin, codes: []),
    ]
    let repetitions = [8, 8, 16, 24].map { (code: UInt64($0), at: origin + .seconds(1)) }
    let lines = Injections.lines(caught, Explanation(repetitions, caught))
    #expect(lines.count == 1)
    #expect(lines[0].cause == .fault(.kill) && lines[0].count == 2 && lines[0].bound == 2 && lines[0].repeated == 2)
    #expect(lines[0].worst.repeated == 2 && lines[0].worst.bound == 2 && lines[0].exceeded == 0)
  }

  @Test func setsOfBitsSubtract() {
    var (some, all) = (BitSet(), BitSet())
    let new = [0, 63, 64, 1000, 4095, 64].map { all.insert($0) }
    #expect(new == [true, true, true, true, true, false])
    for number in [63, 64] { _ = some.insert(number) }
    #expect(all.count == 5 && all.contains(1000) && !all.contains(1001))
    let rest = all.subtracting(some, naming: 2)
    #expect(rest.count == 3 && rest.first == [0, 1000])
    #expect(some.subtracting(all, naming: 2).count == 0)
  }
}
