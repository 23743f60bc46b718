"""Properties of the model of scale.py: spans are conserved, and more of anything useful does no harm."""

import unittest

from scale import GIB, arguments, report, simulate


class Scale(unittest.TestCase):
    def test_the_same_arguments_print_the_same_text(self):
        self.assertEqual(report(arguments([])), report(arguments([])))

    def test_every_span_is_refused_lost_delivered_or_waiting(self):
        for words in (
            [],
            ["--partitions=0"],
            ["--down=topic"],
            ["--retention-hours=2", "--journal-gib=1"],
            ["--exporters=1", "--backend=100000"],
            ["--gateways=1", "--cores=1"],
        ):
            result = simulate(arguments(words), days=2)
            parts = result.refused + result.lost + result.delivered + result.waiting
            self.assertAlmostEqual(parts / result.offered, 1, places=9, msg=words)

    def test_nothing_is_lost_while_the_topic_keeps_longer_than_the_outage_and_the_way_back(self):
        result = simulate(arguments(["--retention-hours=24"]))
        self.assertEqual((result.lost, result.refused), (0, 0))
        self.assertLess(result.lag_max_minutes, 24 * 60)

    def test_a_topic_that_keeps_less_than_the_outage_loses_what_the_journals_do_not_hold(self):
        result = simulate(arguments(["--retention-hours=2"]))
        self.assertGreater(result.lost, 0)

    def test_one_tier_tells_clients_to_come_again_when_its_journals_are_full_and_loses_nothing(self):
        result = simulate(arguments(["--partitions=0", "--gateways=6", "--journal-gib=1"]))
        self.assertEqual(result.lost, 0)
        self.assertGreater(result.refused, 0)

    def test_journals_and_the_topic_never_hold_more_than_they_may(self):
        plan = arguments(["--journal-gib=2", "--down=topic"])
        result = simulate(plan)
        room = plan.journal_gib * GIB / plan.span_bytes
        self.assertLessEqual(result.gateway_max, room * plan.gateways * 1.01)
        self.assertLessEqual(result.exporter_max, room * plan.exporters * 1.01)

    def test_more_exporters_catch_up_no_later_until_there_are_as_many_as_partitions(self):
        at = lambda exporters: simulate(arguments([f"--exporters={exporters}", "--partitions=4", "--backend=1000000"])).caught_up_minutes
        self.assertGreater(at(2), at(3))
        self.assertGreater(at(3), at(4))
        self.assertEqual(at(4), at(8))

    def test_without_an_outage_nothing_waits(self):
        result = simulate(arguments(["--outage=0"]))
        self.assertEqual((result.lag_max_minutes, result.caught_up_minutes), (0, 0))


if __name__ == "__main__":
    unittest.main()
