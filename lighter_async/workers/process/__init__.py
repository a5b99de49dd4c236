"""Workers that are helper processes, with an interpreter lock of their own.

`helper` is one from inside, and `backend` is what the user's process has of them. It is made of `transport` (files in
memory, bells, descriptors), `outbox` (what helpers are told of a batch), `schedule` (what is to be done, and what of it
is in the queue), `helper_processes` (starting them, and seeing which are late), `replacing_dead_helpers` (within
`death_limits`) and `waiting_for_news`. Between the two is the `shared_queue`: the parent's side gives units and the
helper's takes them, in words of shared memory, under a lock of its own. `pickled_messages` are what travels as pickles,
`arrivals` waits for copies from a device, `bells` wake who sleeps, `launch` starts a helper, and `interpreter` says
which program that is. A helper finds what it is told in `helper_setting`, and goes on by itself `after_parent_ends`.
"""
