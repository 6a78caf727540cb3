import Foundation
import Rig
import Testing

@testable import Chaos

/// The checker of the endurance run: that it finds what it is there to find.
@Suite struct TallyTests {
  private let tally = Tally(random: SeededGenerator(seed: 1, stream: 0))
  private let ordered = 2

  @Test func whatWasNotAnsweredIsLostAndWhatWasNotCommittedIsPhantom() {
    commit(first: 0, kept: 100)
    for number in (0..<100).map({ $0 * BulkPublisher.count }) where number != 30 { arrive(number, 0) }
    arrive(1, 0)
    let state = tally.state.withLock { $0 }
    #expect(state.committed.subtracting(state.endpoints[0].answered, naming: 5).first == [30])
    #expect(state.endpoints[0].arrived.subtracting(state.committed, naming: 5).first == [1])
    #expect(tally.backlog == 3 * 100 - 100)
  }

  @Test func whatWasRolledBackIsNotCommitted() {
    commit(first: 0, kept: 40)
    commit(first: 100, kept: 100, isCommitted: false)
    let state = tally.state.withLock { $0 }
    #expect(state.committed.count == 40 && state.rolledBack == 160)
    #expect(!state.committed.contains(40 * BulkPublisher.count))
  }

  @Test func anAnswerOf500IsNoDelivery() {
    #expect(!arrive(0, 0, failing: 1))
    #expect(tally.answeredCount == 0 && tally.repeatedCount == 0)
    #expect(arrive(0, 0, failing: 0))
    // Of what was answered, nothing is refused.
    #expect(arrive(0, 0, failing: 1))
    #expect(tally.answeredCount == 1 && tally.repeatedCount == 1)
  }

  @Test func aSuccessorBeforeItsPredecessorIsAnsweredIsOutOfOrder() throws {
    let (first, second) = try sameKey()
    arrive(first, ordered, failing: 1)
    arrive(second, ordered)
    #expect(misordered == 1)
  }

  @Test func aPredecessorThatComesLateIsOutOfOrder() throws {
    let (first, second) = try sameKey()
    arrive(second, ordered)
    #expect(misordered == 0)
    arrive(first, ordered)
    #expect(misordered == 1)
    arrive(first, 0)
    #expect(misordered == 1, "nobody cares where order does not matter")
  }

  @Test func repetitionsInOrderAreNotOutOfOrder() throws {
    let (first, second) = try sameKey()
    for number in [first, second, first, second] { arrive(number, ordered) }
    #expect(misordered == 0 && tally.repeatedCount == 2)
  }

  @Test func aSecondIDAndANumberBeyondAllAreFound() {
    arrive(0, 0, id: "a")
    arrive(0, 1, id: "a")
    #expect(tally.state.withLock { $0.renamed } == 0)
    arrive(0, 0, id: "b")
    #expect(tally.state.withLock { $0.renamed } == 1)
    #expect(!arrive(Tally.numbersLimit, 0))
    #expect(tally.state.withLock { $0.refused } == 1)
  }

  @Test func recentArrivalsAreRemembered() {
    let origin = ContinuousClock.now
    arrive(0, 0, at: origin)
    arrive(1, 1, at: origin + .seconds(2))
    #expect(tally.arrived(since: origin + .seconds(1)) == [Pair(event: 1, endpoint: 1)])
  }

  private var misordered: Int { tally.state.withLock { $0.endpoints.reduce(0) { $0 + $1.misordered } } }

  private func sameKey() throws -> (Int, Int) {
    let first = try #require((0..<1000).first { BulkPublisher.key(of: $0) != nil })
    let key = BulkPublisher.key(of: first)
    return (first, try #require((first + 1..<100_000).first { BulkPublisher.key(of: $0) == key }))
  }

  private func commit(first: Int, kept: Int, isCommitted: Bool = true) {
    tally.note(
      .init(publisher: 0, first: first, count: 100, kept: kept, isCommitted: isCommitted, wasLookedUp: false)
    )
  }

  @discardableResult
  private func arrive(
    _ number: Int,
    _ place: Int,
    id: String = "id",
    failing: Double = 0,
    at: ContinuousClock.Instant = .now
  ) -> Bool {
    tally.receive(.init(pair: Pair(event: number, endpoint: place), id: id, at: at), failing: failing).isAccepted
  }
}
