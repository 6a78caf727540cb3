import Foundation
import Rig

/// Faults of the network.
extension Scene {
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
