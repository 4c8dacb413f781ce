"""The read side: functions that ask a store and return frozen values. Nothing here prints.

Everything is answered from the store alone; a reader needs neither Redis nor the producers.
"""
