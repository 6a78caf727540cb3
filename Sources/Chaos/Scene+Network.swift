import Foundation
import Rig

/// Faults of the network.
extension Scene {
  /// Between one dispatcher and PostgreSQL.
  func disturbDatabase(_ place: Int, _ random: inout SeededGenerator, _ incident: inout Incident) async throws {
    try await ready(place)
    let link = databaseLinks[place]
    guard let pid = crew.child(place)?.pid else { return }
    defer { link.become(.fair) }
    incident.inFlight = try await observer.inFlight(pid: pid)
    let milliseconds: Int
    switch Int.random(in: 0..<5, using: &random) {
    case 0, 1:
      link.cut(reset: random.happens(0.5))
      milliseconds = 100
    case 2:
      link.become(.slow(milliseconds: Int.random(in: 20...200, using: &random)))
      milliseconds = 1500
    case 3:
      link.become(.refusing)
      link.cut(reset: true)
      milliseconds = Int.random(in: 500...1500, using: &random)
    default:
      // As if the cable had been pulled; often beyond the lease, so that others take over.
      link.become(.silent)
      milliseconds = Int.random(in: 500...6000, using: &random)
    }
    let end = ContinuousClock.now + .milliseconds(milliseconds)
    incident.inFlight.formUnion(
      try await observer.held(by: pid) {
        if .now < end { return true }
        link.become(.fair)
        return try await !observer.isLively(pid)
      }
    )
    if .now < end { try await Task.sleep(until: end) }
    link.become(.fair)
    if random.happens(0.3) { link.cut(reset: true) }
    incident.inFlight.formUnion(try await observer.inFlight(pid: pid))
  }

  /// Between all dispatchers and the receiver. Whatever arrives meanwhile may have been answered in vain.
  func disturbReceiver(_ random: inout SeededGenerator, _ incident: inout Incident) async throws {
    let link = receiverLink
    incident.inFlight = try await observer.inFlight()
    incident.coversArrivals = true
    switch Int.random(in: 0..<5, using: &random) {
    case 0, 1: link.cut(reset: random.happens(0.5))
    case 2:
      link.become(.slow(milliseconds: 2000))
      try await Task.sleep(for: .milliseconds(3000))
    case 3:
      link.become(.refusing)
      link.cut(reset: true)
      try await Task.sleep(for: .milliseconds(Int.random(in: 300...1500, using: &random)))
    default:
      link.become(.silent)
      try await Task.sleep(for: .milliseconds(Int.random(in: 500...9000, using: &random)))
      if random.happens(0.5) { link.cut(reset: true) }
    }
    link.become(.fair)
    // What is still on its way counts, too.
    try await Task.sleep(for: .milliseconds(500))
    incident.inFlight.formUnion(try await observer.inFlight())
  }
}
