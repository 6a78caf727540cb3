import DeliveryCore
import OutboxStore

/// Outcomes on their way into the database.
struct RecordWork: Sendable {
  var dispatcher: Int64
  var outcomes: [Outcome]
  var finishedBatches: [Int64]
  /// This very work was sent before, and the reply was lost.
  var again = false

  /// In two, in order; nil if there is but one outcome. Batches are finished with the second.
  var halves: (RecordWork, RecordWork)? {
    guard outcomes.count > 1 else { return nil }
    var (first, second) = (self, self)
    first.outcomes = Array(outcomes.prefix(outcomes.count / 2))
    first.finishedBatches = []
    second.outcomes = Array(outcomes.dropFirst(outcomes.count / 2))
    return (first, second)
  }

  /// Leaves these batches as they are.
  func without(_ batches: Set<Int64>) -> RecordWork {
    var work = self
    work.finishedBatches.removeAll { batches.contains($0) }
    return work
  }
}

extension Outcome {
  /// All but the ordinary: a direct delivery that succeeded, and of which nothing else in the database depends. A failure
  /// must be rescheduled, and a claimed delivery may be the head of an ordered key.
  var isUrgent: Bool { kind != .delivered || batch == nil }
}

extension Desk {
  /// What is to be recorded next, if there are `count` outcomes or an urgent one; else nil, and then the bell rings when
  /// there are.
  func takeOutcomes(atLeast count: Int) -> RecordWork? {
    withState { state in
      guard let dispatcher = state.lease?.dispatcher, !state.mustResync, !state.outcomes.isEmpty,
        state.outcomes.count >= count || state.hasUrgentOutcome
      else {
        state.recorderAwaits = count
        return nil
      }
      state.recorderAwaits = nil
      state.hasUrgentOutcome = false
      let count = min(state.outcomes.count, limits.outcomesPerRecord)
      let taken = Array(state.outcomes.prefix(count))
      state.outcomes.removeFirst(count)
      state.recording = taken
      var finished: [Int64] = []
      for case let batch? in taken.map(\.batch) {
        state.batches[batch, default: 0] -= 1
        if state.batches[batch] == 0 { finished.append(batch) }
      }
      return RecordWork(dispatcher: dispatcher, outcomes: taken, finishedBatches: finished)
    }
  }

  /// The work was committed. Deliveries to endpoints that no longer want any go back untried. Returns the changes that are
  /// news: a circuit that stays open from probe to probe is told once.
  func recorded(_ work: RecordWork, _ changes: [EndpointChange]) -> [EndpointChange] {
    let now = now
    let (promoted, news) = withState { state in
      state.counters.records += 1
      state.isRepeatingRecord = false
      state.recording.removeFirst(min(work.outcomes.count, state.recording.count))
      var promoted = false
      for outcome in work.outcomes {
        if outcome.batch == nil {
          // The next of its key may be ready now.
          if outcome.retryIn == nil, state.endpoints[outcome.delivery.endpoint]?.isOrdered == true {
            state.plan.waits(endpoint: outcome.delivery.endpoint, delay: .zero, at: now)
            promoted = true
          }
        }
        switch outcome.kind {
        case .delivered: state.counters.delivered += 1
        case .failed: state.counters.failed += 1
        case .returned: state.counters.returned += 1
        }
        if outcome.reason != nil {
          state.counters.dead += 1
          // An expired one may have been the probe of an open circuit, and the next may follow at once.
          if outcome.kind == .returned { state.plan.waits(endpoint: outcome.delivery.endpoint, delay: .zero, at: now) }
        }
        if let delay = outcome.retryIn {
          state.plan.waits(endpoint: outcome.delivery.endpoint, delay: delay, at: now)
        }
      }
      for batch in work.finishedBatches { state.batches[batch] = nil }
      for change in changes where change.circuit == "open" || change.state != "enabled" {
        for held in state.flight.withdraw(endpoint: change.endpoint) {
          state.note(Outcome(held, .returned, tried: false))
        }
        // Settings are read again before anything else is sent there.
        if change.state != "enabled" { state.endpoints[change.endpoint] = nil }
      }
      let news = changes.filter { state.told[$0.endpoint] != $0 }
      for change in changes {
        state.told[change.endpoint] = change.circuit == "closed" && change.state == "enabled" ? nil : change
      }
      return (promoted, news)
    }
    if promoted { intakeBell.ring() }
    return news
  }

  /// Whether we hold a delivery of this work anew: then its record, whose reply was lost, was committed, or we could not
  /// have claimed it again. To the database it looks as if it had not been, and repeated it would give away what we are
  /// sending. Every claim made before the last comparison is known here, and while a record is repeated none is made.
  func holdsAnew(_ work: RecordWork) -> Bool {
    let claimed = Set(work.outcomes.filter { $0.batch == nil }.map(\.delivery))
    return !claimed.isEmpty
      && withState { state in
        state.inFlight.values.contains { $0.held.dispatcher == work.dispatcher && claimed.contains($0.held.key) }
          || state.flight.queuedItems.contains { claimed.contains($0.key) }
          || state.outcomes.contains { claimed.contains($0.delivery) }
      }
  }

  /// The work cannot be recorded, ever: its outcomes are missing again, so their batches are never finished by us.
  func gaveUp(_ work: RecordWork) {
    withState { state in
      state.isRepeatingRecord = false
      state.recording.removeFirst(min(work.outcomes.count, state.recording.count))
      for case let batch? in work.outcomes.map(\.batch) { state.batches[batch, default: 0] += 1 }
    }
  }

  /// Nothing more is taken in or sent; what is queued goes back untried.
  func stop() {
    let wake = withState { state in
      state.isStopping = true
      for held in state.flight.withdrawAll() { state.note(Outcome(held, .returned, tried: false)) }
      return takeRecorderWakeUp(&state)
    }
    if wake { recordBell.ring() }
    intakeBell.ring()
  }

  /// Whether anything is still being sent, or waits to be recorded.
  var isSending: Bool { withState { !$0.inFlight.isEmpty } }
  var hasOutcomes: Bool { withState { !$0.outcomes.isEmpty || !$0.recording.isEmpty } }
}
