import Foundation
import Testing

@testable import Chaos

/// The checker itself: that it finds what it is there to find.
@Suite struct AccountTests {
  private let origin = ContinuousClock.now
  private let ids = (0...9).map { _ in UUID() }

  @Test func whatAllAgreeOnIsInOrder() {
    let result = account([(1, 0, true), (2, 0, false), (2, 0, true), (1, 2, true), (2, 2, true)], committed: 2).settle()
    #expect(result.phantoms.isEmpty && result.duplicates == 0 && result.misordered.isEmpty && result.renamed.isEmpty)
    // Two of the four endpoints got nothing.
    #expect(Set(result.lost) == Set([1, 2].flatMap { [Pair(event: $0, endpoint: 1), Pair(event: $0, endpoint: 3)] }))
    #expect(result.delivered == 4 && result.expected == 8)
  }

  @Test func anAnswerOf500IsNoDelivery() {
    #expect(account([(1, 0, false)], committed: 1).settle().lost.contains(Pair(event: 1, endpoint: 0)))
  }

  @Test func whatWasNotCommittedIsAPhantom() {
    #expect(account([(3, 0, true)], committed: 2).settle().phantoms == [Pair(event: 3, endpoint: 0)])
  }

  @Test func aSuccessorBeforeItsPredecessorIsOutOfOrder() {
    let early = account([(2, 2, true), (1, 2, true)], committed: 2).settle()
    #expect(early.misordered == [Pair(event: 2, endpoint: 2)])
    // An answer of 500 does not make way for it, and at an endpoint that is not ordered nobody cares.
    #expect(account([(1, 2, false), (2, 2, true)], committed: 2).settle().misordered.count == 1)
    #expect(account([(2, 0, true), (1, 0, true)], committed: 2).settle().misordered.isEmpty)
  }

  @Test func eachIncidentExplainsOneRepetitionOfWhatItCaught() {
    var account = account([(1, 0, true), (1, 0, true), (1, 0, true), (2, 0, true), (2, 0, true)], committed: 2)
    var incident = Incident(fault: .kill, began: origin, ended: origin)
    incident.inFlight = [Pair(event: 1, endpoint: 0)]
    account.incidents = [incident]
    let result = account.settle()
    #expect(result.duplicates == 3 && result.injections.map(\.bound) == [1] && result.injections[0].repeated == 1)
    #expect(result.unexplained == [Pair(event: 1, endpoint: 0), Pair(event: 2, endpoint: 0)])
    // One that came after the repetition explains nothing.
    account.incidents[0].began = origin + .seconds(60)
    #expect(account.settle().unexplained.count == 3)
  }

  @Test func aSecondIDIsFound() {
    var account = account([(1, 0, false), (1, 0, true)], committed: 1)
    account.arrivals[1].id = UUID()
    #expect(account.settle().renamed == [Pair(event: 1, endpoint: 0)])
  }

  /// Events 1… of one key; arrivals a second apart.
  private func account(_ arrivals: [(event: Int, endpoint: Int, accepted: Bool)], committed: Int) -> Account {
    var journal = Journal.State()
    for event in 1...committed {
      journal.committed[event] = .init(number: event, place: .init(key: "k", index: event - 1))
    }
    return Account(
      journal: journal,
      arrivals: arrivals.enumerated().map { index, arrival in
        Mailbox.Arrival(
          pair: Pair(event: arrival.event, endpoint: arrival.endpoint),
          id: ids[arrival.event],
          isAccepted: arrival.accepted,
          at: origin + .seconds(index + 1)
        )
      },
      incidents: []
    )
  }
}
