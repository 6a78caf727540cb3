import OutboxStore

extension Desk {
  var dispatcher: Int64? { withState { $0.lease?.dispatcher } }

  /// A new lease, or a renewed one, good until `until` on our clock. Returns whether sending had come to a halt for want
  /// of it.
  func granted(_ dispatcher: Int64, until: Duration) -> Bool {
    let stood = withState { state in
      let stood = state.lacksLease
      state.lacksLease = false
      if state.lease?.dispatcher != dispatcher { state.resyncs = 0 }
      state.lease = (dispatcher, until)
      return stood
    }
    intakeBell.ring()
    recordBell.ring()
    return stood
  }

  /// What the database's clock showed just now; a host's own may be wrong, and receivers refuse what is five minutes off.
  func learned(serverTime seconds: Double) {
    let now = now
    withState { $0.serverTime = (seconds, now) }
  }

  /// The lease is gone: everything it stood for belongs to others now. What is in flight cannot be called back; its
  /// outcomes will be ignored.
  func lost(_ dispatcher: Int64) {
    withState { state in
      guard state.lease?.dispatcher == dispatcher else { return }
      state.lease = nil
      _ = state.flight.withdrawAll()
      state.outcomes = []
      state.batches = [:]
      state.recording = []
      state.mustResync = false
      state.isRepeatingRecord = false
      state.counters.leasesLost += 1
    }
    leaseBell.ring()
  }

  /// What the database says we hold may not be what we do hold: a reply was lost, or a commit. `ofRecord`: the reply to a
  /// record, which is now repeated.
  func doubt(ofRecord: Bool = false) {
    withState { state in
      state.mustResync = true
      if ofRecord { state.isRepeatingRecord = true }
    }
    intakeBell.ring()
  }

  var isInDoubt: Bool { withState { $0.mustResync } }

  /// How each is held matters: what we claimed, and a crash put back into its batch, is not held by that.
  private func held(_ state: borrowing State) -> [(key: DeliveryKey, batch: Int64?)] {
    let dispatcher = state.lease?.dispatcher
    let sending = (state.flight.queuedItems + state.inFlight.values.map(\.held)).filter { $0.dispatcher == dispatcher }
    return sending.map { ($0.key, $0.batch) } + (state.outcomes + state.recording).map { ($0.delivery, $0.batch) }
  }

  /// All that we hold.
  func held() -> [DeliveryKey] { withState { held($0).map(\.key) } }

  var resyncs: Int { withState { $0.resyncs } }

  /// The number of the comparison that begins now, and with what: all that we hold, queued, in flight, or with an outcome
  /// not recorded yet. nil as long as a record is under way: what it is about may have been claimed anew, in a reply that
  /// was lost, and would be kept for a delivery that the record's own reply is about to end.
  func beginResync() -> (number: Int, held: [(key: DeliveryKey, batch: Int64?)])? {
    withState { state in
      guard !state.isRecordUnderWay else { return nil }
      state.resyncs += 1
      return (state.resyncs, held(state))
    }
  }

  /// Whether a record may be made now; `endRecord` must follow.
  func beginRecord() -> Bool {
    withState { state in
      guard !state.mustResync else { return false }
      state.isRecordUnderWay = true
      return true
    }
  }

  func endRecord() {
    let isAwaited = withState { state in
      state.isRecordUnderWay = false
      return state.mustResync
    }
    if isAwaited { intakeBell.ring() }
  }

  func resynced() {
    withState { $0.mustResync = false }
    recordBell.ring()
  }
}
